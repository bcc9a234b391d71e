"""The commands as people type them: what they print, and what bad input gets."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from luvc.engines import Bundle
from luvc.engines.bundle.folder import sha256
from luvc.engines.bundle.schedule import Schedule
from luvc.exporter import cli
from luvc.exporter import cli_plan as plan
from luvc.exporter.check import parity
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.timing.latency import StageCosts, Timed
from luvc.tools import info
from luvc.tools import run as run_tool
from luvc.tools import validate as validate_tool
from luvc.tools.bench import cli as bench

from .conftest import TINY, ask

SMALL = ("--text-tokens", "8", "--text-capacity", "96")


@pytest.fixture
def photo(tmp_path, picture):
    path = tmp_path / "photo.png"
    Image.fromarray(picture).save(path)
    return path


@pytest.fixture
def broken(workshop, tmp_path):
    """A copy of a sharded checkpoint that a test may break."""
    source = workshop.checkpoint(layers=3, vision_layers=1, image=112, shard="400KB")
    target = tmp_path / "checkpoint"
    shutil.copytree(source, target)
    assert len(list(target.glob("*.safetensors"))) > 2
    return target


def config(folder, **data):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(data))


# ---- export
def test_export_prints_plan_steps_and_validation(command, workshop, tmp_path):
    model = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    target = tmp_path / "bundle"
    result = command(cli, "--model", model, "--ratio", "1.23x", "--output", target, *SMALL)
    assert result.code == 0, result.err
    assert "112x112: 1 image, 1 tile each, 16 -> " in result.out
    assert "greedy tokens equal pass" in result.out and f"wrote {target}" in result.out
    assert "done tracing prefill-112x112" in result.err
    bundle = Bundle.load(target, verify=True)
    assert bundle.manifest.validated
    assert 1.23 <= bundle.manifest.layouts[0].ratios.prefill <= 1.23 * 1.02


def test_export_as_json(command, workshop, tmp_path):
    model = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    line = ("--model", model, "--output", tmp_path / "bundle", *SMALL, "--json")
    result = command(cli, *line, "--ratio", "1.23x")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    files = [p for p in (tmp_path / "bundle").rglob("*") if p.is_file()]
    size = sum(p.stat().st_size for p in files if p.name != "manifest.json")
    assert found["bundle"] == str(tmp_path / "bundle") and found["bytes"] == size
    assert found["validated"] is True and found["validated_layers"] == 3
    asked = ("--model", model, "--ratio", "1.23x", "--text-tokens", "8", "--json")
    assert found["plans"] == json.loads(command(plan, *asked).out)["plans"]
    assert found["latency"] is None and found["engines"] == []
    refused = command(cli, *line, "--ratio", "50x")
    assert refused.code == 2 and refused.out == "" and "largest feasible ratio is" in refused.err


def test_export_as_json_with_measured_times(workshop):
    bundle = workshop.bundle("qwen2")
    timed = Timed(Schedule(), 1.5, 1.52, 1.51, 30.2, 20.0, StageCosts(0, 0, 0, 1, 0))
    found = json.dumps(cli._result(bundle, Family.load(bundle.manifest.model), timed))
    assert json.loads(found)["latency"] == {
        "asked": 1.5, "predicted": 1.52, "measured": 1.51, "baseline_ms": 30.2, "compressed_ms": 20.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ratio", "0.5"), "below 1"),
        (("--ratio", "fast"), "not a number"),
        (("--ratio", "50x"), "largest feasible ratio is"),
        (("--image-size", "big"), "HEIGHTxWIDTH"),
        (("--image-size", "100x100"), "whole number of 112x112 tiles"),
        (("--image-size", "112x2240"), "cuts at most 12"),
        (("--dtype", "int8"), "--dtype: "),
        (("--backend", "teletype"), "teletype"),
        (("--ratio", "1", "--text-capacity", "9000"), "more than the model's 8192 positions"),
        (("--text-capacity", "3"), "--text-capacity: "),
        (
            ("--ratio", "1", "--dtype", "fp16", "--oim-share", "0.5", "--oim-match"),
            "cannot be validated",
        ),
        (("--oim-match",), "give --oim-share 0.5 too"),
        (("--oim-share", "2"), "--oim-share: "),
        (("--text-tokens", "0"), "--text-tokens: "),
        (("--text-tokens", "2048"), "--text-tokens 2048 is more than --text-capacity 1024"),
        (("--cutoff", "0"), "--cutoff: "),
        (("--stages", "0.5,1"), "--stages"),
        (("--stages", "early"), "--stages 'early' are not numbers such as"),
        (("--keeps", "all"), "--keeps: "),
        (("--signal", "loud"), "--signal: "),
        (("--ratio", "1", "--images", "1", "--images", "1"), "named twice"),
        (("--schedule", "nowhere.json"), "nowhere.json cannot be read"),
    ],
)
def test_export_refuses_and_writes_nothing(command, workshop, tmp_path, options, message):
    model = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    target = tmp_path / "bundle"
    result = command(cli, "--model", model, "--output", target, *options)
    assert result.code == 2
    assert result.err.startswith("error: ") and message in result.err
    assert "Traceback" not in result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("{", "not valid JSON"),
        ('{"language": [{"layer": 7, "keep": 1}]}', "language layer 7 does not exist"),
        ('{"language": [{"layer": 1, "keep": 400}]}', "prunes nothing"),
        ('{"vision": [{"layer": 0, "axis": "sideways", "group": 2}]}', "vision.0.axis"),
    ],
)
def test_schedule_files_are_checked(command, workshop, tmp_path, schedule, message):
    model = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    file = tmp_path / "schedule.json"
    file.write_text(schedule)
    result = command(cli, "--model", model, "--output", tmp_path / "b", "--schedule", file)
    assert result.code == 2 and message in result.err
    assert [p.name for p in tmp_path.iterdir()] == ["schedule.json"]


def test_models_that_are_not_supported(command, tmp_path):
    folder = tmp_path / "model"
    cases = [
        ({"model_type": "mllama", "vision_config": {}, "text_config": {}}, "'mllama' is not"),
        ({"model_type": "martian"}, "'martian' is not"),
        ({"model_type": "qwen2"}, "without a vision tower"),
        ({"model_type": "internvl_chat", "auto_map": {"AutoConfig": "x.y"}}, "never run"),
    ]
    for data, message in cases:
        config(folder, **data)
        result = command(cli, "--model", folder, "--output", tmp_path / "b")
        assert result.code == 2 and message in result.err, result.err
        assert "internvl" in result.err
    (folder / "config.json").write_text("{nonsense")
    assert "not valid JSON" in command(plan, "--model", folder).err
    (folder / "config.json").unlink()
    assert "no config.json" in command(plan, "--model", folder).err
    assert "no checkpoint can be read" in command(plan, "--model", "no/such-model").err
    assert "there is no directory ./nowhere" in command(plan, "--model", "./nowhere").err


def test_code_of_a_hub_checkpoint_is_never_run(command, tmp_path, monkeypatch):
    """A hub id with code of its own, as a cached snapshot; the answer to any prompt would be yes."""
    snapshot = tmp_path / "hub" / "models--someone--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    config(snapshot, model_type="internvl_chat", auto_map={"AutoConfig": "code.Config"})
    (snapshot / "code.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\n"
        "from transformers import PretrainedConfig\n"
        "class Config(PretrainedConfig):\n    model_type = 'internvl_chat'\n"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-m", "luvc.exporter.cli_plan", "--model", "someone/model"],
        input="y\n", capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert result.returncode == 2 and "never run" in result.stderr
    assert not (tmp_path / "ran").exists()


def test_a_missing_shard(command, broken, tmp_path):
    sorted(broken.glob("model-*.safetensors"))[1].unlink()
    result = command(cli, "--model", broken, "--output", tmp_path / "b", "--ratio", "1", *SMALL)
    assert result.code == 2 and "weights cannot be loaded" in result.err
    assert not (tmp_path / "b").exists()


def test_a_truncated_shard(command, broken, tmp_path):
    shard = sorted(broken.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-1000])
    result = command(cli, "--model", broken, "--output", tmp_path / "b", "--ratio", "1", *SMALL)
    assert result.code == 2 and "weights cannot be loaded" in result.err


def test_a_weight_that_is_absent(command, broken, tmp_path):
    index = broken / "model.safetensors.index.json"
    data = json.loads(index.read_text())
    gone = next(n for n in data["weight_map"] if "layers.1.mlp.up_proj" in n)
    from safetensors.numpy import load_file, save_file

    file = broken / data["weight_map"].pop(gone)
    tensors = load_file(file)
    del tensors[gone]
    save_file(tensors, file, metadata={"format": "pt"})
    index.write_text(json.dumps(data))
    result = command(cli, "--model", broken, "--output", tmp_path / "b", "--ratio", "1", *SMALL)
    assert result.code == 2 and "up_proj" in result.err and "missing" in result.err


def test_processor_files_that_are_absent(command, broken):
    (broken / "preprocessor_config.json").unlink()
    result = command(plan, "--model", broken, "--ratio", "1")
    assert result.code == 2 and "preprocessor_config.json cannot be read" in result.err


def test_a_tokenizer_file_that_holds_something_else(command, broken):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7031645\n"
    (broken / "tokenizer.json").write_text(pointer)
    result = command(plan, "--model", broken, "--ratio", "1")
    assert result.code == 2 and "tokenizer files cannot be read" in result.err


def test_export_tells_which_generation_settings_are_left_out(command, broken, tmp_path):
    file = broken / "generation_config.json"
    settings = {"no_repeat_ngram_size": 3, "bad_words_ids": [[5]], "num_beams": 1, "top_k": 7}
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    line = ("--model", broken, "--output", tmp_path / "b", "--ratio", "1", "--no-validate", *SMALL)
    result = command(cli, *line)
    assert result.code == 0, result.err
    left = "generation settings not carried over: no_repeat_ngram_size=3, bad_words_ids=[[5]]; "
    assert left in result.out


def test_an_export_that_differs_from_pytorch(command, workshop, tmp_path, monkeypatch):
    rounded = parity._rounded

    def negative(model, dtype):
        model = rounded(model, dtype)
        model.lm_head.weight = torch.nn.Parameter(-model.lm_head.weight)
        return model

    model = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    line = ("--model", model, "--output", tmp_path / "b", "--ratio", "1", *SMALL)
    monkeypatch.setattr(parity, "_rounded", negative)
    result = command(cli, *line)
    assert result.code == 1 and "does not match PyTorch" in result.err
    report = tmp_path / "b-failed-validation.json"
    assert json.loads(report.read_text())["passed"] is False and not (tmp_path / "b").exists()
    monkeypatch.undo()
    assert command(cli, *line).code == 0 and not report.exists()


def test_matching_in_half_precision_is_refused_from_a_schedule_too(command, workshop, tmp_path):
    model = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    file = tmp_path / "schedule.json"
    merge = {"layer": 0, "axis": "width", "group": 2}
    file.write_text(json.dumps({"vision": [merge], "match": True}))
    line = ("--model", model, "--output", tmp_path / "b", "--schedule", file, "--dtype", "fp16")
    result = command(cli, *line)
    assert result.code == 2 and "cannot be validated" in result.err


def test_a_full_disk(command, workshop, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    model = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    result = command(cli, "--model", model, "--output", tmp_path / "b", "--ratio", "1", *SMALL)
    assert result.code == 2 and "make room" in result.err
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_something_else(command, workshop, tmp_path):
    model = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    (tmp_path / "notes.txt").write_text("mine")
    result = command(cli, "--model", model, "--output", tmp_path, "--ratio", "1", *SMALL)
    assert result.code == 2 and "not a bundle" in result.err
    assert (tmp_path / "notes.txt").read_text() == "mine"


# ---- plan
def test_plan_reads_no_weights_and_gives_json(command, broken):
    for shard in broken.glob("*.safetensors"):
        shard.unlink()
    result = command(
        plan, "--model", broken, "--ratio", "1.23", "--ratio", "90", "--text-tokens", "8", "--json"
    )
    assert result.code == 0, result.err
    data = json.loads(result.out)
    assert "largest feasible" in data["refused"]["90"]
    (found,) = data["plans"]
    assert found["layout"]["ratios"]["prefill"] == pytest.approx(1.23, rel=0.021)
    kv = sum(s["kv_bytes"] for s in found["stages"])
    layers = [n for s in found["stages"] for n in range(s["first"], s["last"] + 1)]
    assert layers == [0, 1, 2]
    # 2 (K and V) x kv heads x head_dim x 4 bytes x tokens, counted here again
    tokens = [
        s["visual_tokens"] + 8 for s in found["stages"] for _ in range(s["first"], s["last"] + 1)
    ]
    assert kv == sum(2 * 2 * 64 * 4 * t for t in tokens)


def test_plan_shows_what_was_left_out(command, workshop):
    model = workshop.checkpoint(layers=4, vision_layers=2, image=168)
    result = command(plan, "--model", model, "--text-tokens", "8")
    assert result.code == 0
    assert "ratios (baseline / compressed FLOPs)" in result.out
    assert "note: nothing is merged in the vision tower" in result.out
    merged = command(plan, "--model", model, "--text-tokens", "8", "--oim-share", "0.5")
    assert "note: OIM before vision layer" in merged.out
    same = command(plan, "--model", model, "--ratio", "1")
    assert "the bundle equals the unmodified model" in same.out


# ---- run and validate
def test_run_streams_and_prints_counts(command, workshop, photo):
    bundle = workshop.bundle("qwen2")
    result = command(run_tool, bundle.path, "Why?", "--image", photo, "-v", "--max-new-tokens", "8")
    assert result.code == 0, result.err
    layout = bundle.manifest.layouts[0]
    assert f"{layout.baseline_visual_tokens} at ratio 1, {layout.visual_tokens} enter" in result.err
    layers = ", ".join(str(p.layer) for p in layout.schedule.language)
    assert f"-> 0 (pruned before layers {layers})" in result.err
    data = json.loads(
        command(
            run_tool, bundle.path, "Why?", "--image", photo, "--json", "--max-new-tokens", "8"
        ).out
    )
    assert data["text"] == result.out[:-1]
    assert data["visual_tokens"] == layout.visual_tokens


def test_run_samples_as_it_is_told(command, workshop, photo):
    vlm, tokens = workshop.vlm("qwen2"), []
    line = (vlm.bundle.path, "Why?", "--image", photo, "--max-new-tokens", 20, "--threads", 1)
    for seed in (5, 6):
        sampled = ("--temperature", 1.5, "--top-p", 0.95, "--top-k", 40, "--seed", seed)
        sampled += ("--repetition-penalty", 1.3)
        result = command(run_tool, *line, *sampled, "--json")
        assert result.code == 0, result.err
        tokens.append(json.loads(result.out)["token_ids"])
        wanted = vlm.generate(
            ask("Why?", str(photo)), max_new_tokens=20, temperature=1.5, top_p=0.95, top_k=40,
            repetition_penalty=1.3, seed=seed,
        )  # fmt: skip
        assert tokens[-1] == wanted.token_ids
    assert tokens[0] != tokens[1]


def test_run_takes_the_layout_it_is_told(command, workshop, photo, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "luvc.tools.token_map.draw", lambda images, layout, *rest: drawn.append(layout.name)
    )
    bundle = workshop.bundle("qwen2-layouts", 1).path
    line = (bundle, "Why?", "--image", photo, "--max-new-tokens", 2, "--json", "--show-tokens", "x")
    for name in ("56x56", "56x112"):
        result = command(run_tool, *line, "--layout", name)
        assert result.code == 0, result.err
        assert json.loads(result.out)["layout"] == name == drawn[-1]
    refused = command(run_tool, *line, "--layout", "9x9")
    assert refused.code == 2 and "there is no layout '9x9' in this bundle, only" in refused.err


def test_run_says_when_the_capacity_ends_it(command, workshop, photo):
    bundle = workshop.bundle("qwen2")
    result = command(run_tool, bundle.path, "Why?", "--image", photo, "--max-new-tokens", "900")
    assert result.code == 0 and "stopped: the bundle holds 96 text tokens" in result.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("nowhere", "Why?", "--image", "photo.png"), "is not a folder"),
        (("BUNDLE", "Why?", "--image", "nowhere.png"), "nowhere.png cannot be read"),
        (
            ("BUNDLE", "Why?", "--image", "PHOTO", "--image", "PHOTO"),
            "2 images, this bundle holds 1",
        ),
        (("BUNDLE", "Why?", "--image", "PHOTO", "--backend", "abacus"), "abacus"),
        (("BUNDLE", "Why?", "--image", "PHOTO", "--top-p", "7"), "top_p"),
        (
            ("BUNDLE", "Why?"),
            "the prompt has no images, this bundle holds 1: give one, or export with --images 0 too",
        ),
    ],
)
def test_run_refuses(command, workshop, photo, args, message):
    names = {"BUNDLE": workshop.bundle("qwen2").path, "PHOTO": photo}
    result = command(run_tool, *(names.get(a, a) for a in args))
    assert result.code == 2 and message in result.err


def test_questions_without_a_picture(command, workshop, tmp_path):
    bundle = workshop.bundle("qwen2-text-fp16").path
    asked = command(run_tool, bundle, "Why?", "--max-new-tokens", 4, "--verbose")
    assert asked.code == 0 and asked.out.strip() and "layout text" in asked.err
    assert "visual tokens: 0 at ratio 1, 0 enter the language model\n" in asked.err
    drawn = command(run_tool, bundle, "Why?", "--show-tokens", tmp_path / "tokens.png")
    assert drawn.code == 2 and "there is none: give --image" in drawn.err
    shown = command(info, bundle)
    assert shown.code == 0 and "no image" in shown.out
    measured = command(bench, bundle, "--layout", "text", "--compare", "hf")
    assert measured.code == 2 and "is of questions without a picture" in measured.err
    model = "--model", workshop.checkpoint(**TINY)
    options = (*model, "--text-tokens", 8, "--images", 1, "--images", 0)
    several = command(plan, *options, "--ratio", 1.2, "--ratio", 2, "--json").out
    images = [p["layout"]["images"] for p in json.loads(several)["plans"]]
    assert images == [1, 0, 1], "without a picture it is alike at both"
    planned = command(plan, *options)
    assert "text: questions without a picture; no visual tokens" in planned.out
    plans = json.loads(command(plan, *options, "--json").out)["plans"]
    assert [p["layout"]["images"] for p in plans] == [1, 0]
    assert plans[1]["notes"] and plans[1]["stages"][0]["visual_tokens"] == 0
    only = command(cli, *model, "--images", 0, "--output", tmp_path / "b")
    assert only.code == 2 and "nothing to compress: give another number" in only.err


def test_validate(command, workshop, tmp_path):
    bundle = workshop.bundle("qwen2")
    result = command(validate_tool, bundle.path, "--json")
    assert result.code == 0, result.err
    (report,) = json.loads(result.out)
    assert report["passed"] and report["greedy_equal"] == 64
    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    weights = copy / "onnx" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-4:] = np.float32(9).tobytes()
    weights.write_bytes(data)
    assert "SHA-256" in command(validate_tool, copy).err
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["onnx/weights.safetensors"]["sha256"] = sha256(weights)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    differs = command(validate_tool, copy)
    assert differs.code == 1 and "differs" in differs.err and "Traceback" not in differs.err
    other = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    wrong = command(validate_tool, bundle.path, "--model", other)
    assert wrong.code == 2 and "not the model this bundle was made from" in wrong.err


def test_a_schedule_file_says_everything_itself(command, workshop, tmp_path):
    model = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    file = tmp_path / "schedule.json"
    file.write_text('{"language": [{"layer": 1, "keep": 5}], "cutoff": 0.5}')
    result = command(plan, "--model", model, "--schedule", file)
    assert result.code == 0 and f"asked {file}" in result.out
    for extra in (("--ratio", "3x"), ("--cutoff", "0.9"), ("--oim-match",)):
        refused = command(plan, "--model", model, "--schedule", file, *extra)
        assert refused.code == 2 and f"give either --schedule or {extra[0]}:" in refused.err


def test_version(command):
    from luvc import __version__

    assert command(cli, "--version").out == f"luvc-export {__version__}\n"


def test_a_missing_onnx_runtime_is_a_clear_message(command, workshop, photo, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = command(run_tool, workshop.bundle("qwen2").path, "Why?", "--image", photo)
    assert result.code == 2 and "pip install 'luvc-export[cpu]'" in result.err


def test_bugs_keep_their_trace(command, workshop, monkeypatch):
    monkeypatch.setattr("luvc.exporter.checkpoint.family.Family.load", lambda source: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command(plan, "--model", "x")
