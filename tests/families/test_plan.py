"""luvc-plan for the shapes of published models of every family: from the config alone, in a second."""

import json
import sys

import pytest

from luvc.exporter import cli_plan

from . import published, reference
from .gallery import apart
from .processors import processor

NAMES = [apart(n, published.config(n)["model_type"] == "lfm2_vl") for n in published.NAMES]
# Visual tokens of one picture of the default size, as the models' own processors count them.
VISUAL = {
    "GLM-4.1V-9B-Thinking": 256,  # 448 x 448 pixels in blocks of 28 x 28
    "GLM-4.6V-Flash": 256,
    "GLM-OCR": 256,
    "Idefics3-8B-Llama3": 169,
    "InternVL2_5-8B": 256,
    "InternVL3-1B-hf": 256,
    "InternVL3-8B-hf": 256,
    "LFM2-VL-1.6B": 256,
    "LightOnOCR-1B-1025": 256,
    "Ministral-3-8B-Instruct-2512-BF16": 256,
    "Mistral-Small-3.1-24B-Instruct-2503": 256,
    "Ovis2-8B-hf": 256,
    "PaddleOCR-VL": 256,
    "Qwen2-VL-7B-Instruct": 256,
    "Qwen2.5-VL-7B-Instruct": 256,
    "Qwen3-VL-8B-Instruct": 196,  # blocks of 32 x 32
    "Qwen3.5-9B": 196,
    "SmolVLM-500M-Instruct": 64,
    "SmolVLM2-2.2B-Instruct": 81,
    "gemma-3-4b-it": 256,
    "gemma-4-31B-it": 256,  # 16 x 16 blocks of 48 x 48 pixels, of at most 280
    "gemma-4-E2B-it": 256,
    "llava-1.5-7b-hf": 576,
    "llava-onevision-qwen2-7b-ov-hf": 1485,  # 729 + 27 rows of 27 and a line end
    "llava-v1.6-mistral-7b-hf": 1752,  # 576 + 24 rows of 48 and a line end
    "paligemma-3b-mix-448": 1024,
    "paligemma2-3b-mix-448": 1024,
}

# Pages of dense text: size, visual tokens, and a size that the processor makes smaller.
PAGES = {
    "GLM-OCR": ((2240, 1680), 4800, (2800, 2800)),
    "LightOnOCR-1B-1025": ((1540, 1540), 3025, (1568, 1540)),
    "Mistral-Small-3.1-24B-Instruct-2503": ((1540, 1512), 2970, (1568, 1540)),
    "PaddleOCR-VL": ((1960, 1428), 3570, (1960, 1456)),
}


def plan_of(folder, *options, monkeypatch, capsys) -> dict:
    """What luvc-plan prints as JSON."""
    arguments = ["luvc-plan", "--model", str(folder), "--json", *options]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as done:
        cli_plan.main()
    out, err = capsys.readouterr()
    return json.loads(out) if not done.value.code else {"error": err}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_dense_text_is_planned(name, tmp_path, monkeypatch, capsys):
    """Counted by Hugging Face's processor; 3,840 entries are all that a TopK of TensorRT takes."""
    from PIL import Image

    folder, (size, visual, larger) = published.write(name, tmp_path), PAGES[name]
    call = {"monkeypatch": monkeypatch, "capsys": capsys}
    written = "{}x{}".format(*size)
    asked = "--image-size", written, "--image-tokens", str(visual)
    printed = plan_of(folder, *asked, "--ratio", "2x", "--ratio", "3x", **call)
    proc = processor(folder)
    ids = reference.inputs(proc, "OCR:", [Image.new("RGB", (size[1], size[0]), "white")])[
        "input_ids"
    ][0]
    token = proc.tokenizer.convert_tokens_to_ids(proc.image_token)
    assert ids.tolist().count(token) == visual
    assert not printed["refused"]
    for ratio, found in zip((2, 3), printed["plans"], strict=True):
        layout = found["layout"]
        assert layout["image_size"] == list(size)
        assert layout["visual_tokens"] == layout["baseline_visual_tokens"] == visual
        assert ratio <= layout["ratios"]["prefill"] <= 1.02 * ratio
        assert all(s["visual"] <= visual for s in layout["stages"])
    refused = plan_of(folder, "--image-size", "{}x{}".format(*larger), **call)["error"]
    assert "use --image-size" in " ".join(refused.split())


@pytest.mark.cell("plan")
@pytest.mark.parametrize("name", NAMES)
def test_a_published_shape_is_planned(name, tmp_path, monkeypatch, capsys):
    folder = published.write(name, tmp_path)
    options = ["--ratio", "1x", "--ratio", "1.5x", "--oim-share", "0.5"]
    printed = plan_of(folder, *options, monkeypatch=monkeypatch, capsys=capsys)
    plain, compressed = (p["layout"] for p in printed["plans"])
    assert not printed["refused"]
    assert plain["visual_tokens"] == compressed["baseline_visual_tokens"] == VISUAL[name]
    assert 1.5 <= compressed["ratios"]["prefill"] <= 1.53
    values = published.config(name)
    layers = values.get("text_config", values).get("num_hidden_layers", 32)  # 32 is llama's default
    assert compressed["stages"][-1]["last"] + 1 == layers
    keeps = [stage["visual"] for stage in compressed["stages"]]
    assert keeps == sorted(keeps, reverse=True) and keeps[0] < VISUAL[name]
    # the last 20 of E2B's 35 layers read what the first 15 keep: none is left out before them
    assert (keeps[-1] == 0) == (name != "gemma-4-E2B-it")
    if (
        name == "LFM2-VL-1.6B"
    ):  # 6 attentions with 8 heads of 64; 10 convolutions keep 3 columns of 2048
        kept = sum(stage["kv_bytes"] for stage in printed["plans"][0]["stages"])
        assert kept == 4 * (6 * 2 * 8 * 64 * (256 + 64) + 10 * 3 * 2048)
