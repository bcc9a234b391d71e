"""Writes docs/families.md from what the tests of a run passed, or of several runs, each of some families.

LUVC_CELLS=cells.jsonl pytest tests/families && python -m tests.families.table cells.jsonl > docs/families.md

What has a test and did not pass in these runs is a "no" on the page, and told on stderr.
"""

import importlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from luvc.exporter.language.traits import SUPPORTED
from luvc.exporter.vision.families import FAMILIES

from . import published
from .checkpoints import NAMES, family_of
from .with_torchvision import ROOT

PAGE = ROOT / "docs" / "families.md"
# Columns of the second table, by the cells the tests name.
CELLS = {
    "ratio 1": "ratio 1 = HF",
    "OIM": "OIM = HF merged by hand",
    "text only": "without a picture = HF",
    "SPU": "pruned = HF with rows dropped",
    "ORT fp32": "ONNX Runtime fp32 = PyTorch",
    "ORT fp16": "ONNX Runtime fp16",
    "RTX": "TensorRT-RTX fp16 builds",
}
NAMED = ("name", "exported")  # parameters of tests that name a checkpoint
Cells = set[tuple[str, str]]
# What is peculiar to a family: its vision side, and what is left out.
FEATURES = {
    "internvl": ("tiles and thumbnail, pixel shuffle", "square tiles; features of the last layer"),
    "llava": ("CLIP or SigLIP, one or several feature layers", "one image size"),
    "llava_next": (
        "tiles packed without padding, line ends",
        "--image-size fixes tiles and packing",
    ),
    "llava_onevision": (
        "tiles packed without padding, line ends, bilinear shrinking",
        "tiles for a single image, none for several",
    ),
    "qwen2_vl": ("rotary positions in two axes, M-RoPE; any size", "one image size a layout"),
    "qwen2_5_vl": (
        "windows keep their image area and hold fewer tokens, M-RoPE; any size",
        "one attention a window size",
    ),
    "qwen3_vl": ("resampled position table, DeepStack, interleaved M-RoPE; any size", ""),
    "qwen3_5": (
        "resampled position table, interleaved M-RoPE; any size",
        "linear attention; TensorRT scans its state token by token",
    ),
    "glm4v": ("bicubic position table, strided convolution, M-RoPE; any size", ""),
    "glm_ocr": ("norms on queries and keys, strided convolution, M-RoPE; any size", ""),
    "lighton_ocr": ("Pixtral's rotary positions in two axes, merger of patches; any size", ""),
    "mistral3": (
        "Pixtral's rotary positions in two axes, merger of patches, row ends in the prompt; any size",
        "features of the last layer; row ends are text",
    ),
    "paddleocr_vl": ("resampled position table beside rotary ones, M-RoPE; any size", ""),
    "smolvlm": ("tiles with row and column marks, space-to-depth", "sizes in whole tiles"),
    "idefics3": ("tiles with row and column marks, space-to-depth", "sizes in whole tiles"),
    "paligemma": (
        "the whole prompt sees itself, positions from 1",
        "one image size; no question without a picture; each turn of a chat runs afresh",
    ),
    "gemma3": (
        "average pooling, attention both ways inside an image",
        "one image size; no pan and scan",
    ),
    "gemma4": (
        "rotary positions in two axes beside a table, average pooling; any size that fills a budget",
        "dense models; no audio; where late layers share keys and values, no stage before them",
    ),
    "ovis2": ("tiles with marks, mixture over a visual vocabulary", "not with gumbel_argmax"),
    "lfm2_vl": (
        "resampled position table, pixel unshuffle; any size",
        "one tile; its processor needs torchvision",
    ),
}


def covered() -> Cells:
    """(name, cell) of every test there is."""
    found: Cells = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        tests = vars(importlib.import_module(f"tests.families.{file.stem}")).values()
        for marks in (getattr(test, "pytestmark", []) for test in tests):
            cells = [m.args[0] for m in marks if m.name == "cell"]
            lists = [m.args[1] for m in marks if m.name == "parametrize" and m.args[0] in NAMED]
            names = [getattr(p, "values", [p])[0] for values in lists for p in values]
            found |= {(name, cell) for cell in cells for name in names}
    return found


def passed(lines: Iterable[str]) -> Cells:
    """(name, cell) of every test that passed."""
    return {(line["name"], line["cell"]) for line in map(json.loads, lines)}


def page(cells: Cells) -> str:
    """docs/families.md, with these cells said to hold."""
    return HEAD + _families(cells) + MIDDLE + _checks(cells) + TAIL


def _families(cells: Cells) -> str:
    rows = [
        "| family (`model_type`) | planned for the published shape of | vision side | video | limits |",
        "|---|---|---|---|---|",
    ]
    for family in FAMILIES:
        shapes = [n for n in published.NAMES if published.config(n)["model_type"] == family]
        planned = ", ".join(n for n in shapes if (n, "plan") in cells)
        vision, limits = FEATURES[family]
        own = {(family, "video"), (family, "video SPU")} <= cells
        video = "yes" if own else "as images" if (family, "frames as images") in cells else "no"
        rows.append(f"| `{family}` | {planned} | {vision} | {video} | {limits} |")
    return "\n".join(rows)


def _checks(cells: Cells) -> str:
    rows = [
        f"| checkpoint | text model | {' | '.join(CELLS.values())} |",
        "|---" * (len(CELLS) + 2) + "|",
    ]
    for name in sorted(NAMES, key=lambda n: (family_of(n), n != family_of(n), n)):
        family = family_of(name)
        states = ["yes" if (name, cell) in cells else "no" for cell in CELLS]
        if name != family and (family, "OIM") in cells:  # the same tower
            states[list(CELLS).index("OIM")] = f"as {family}"
        rows.append(f"| {name} | {text_model(name)} | {' | '.join(states)} |")
    return "\n".join(rows)


def text_model(name: str) -> str:
    """model_type of a test checkpoint's text model."""
    from .checkpoints import settings
    from .prompts import tokenizer

    return settings(name, tokenizer(family_of(name)), {}).text_config.model_type


HEAD = """\
# Families

Written by the tests: `LUVC_CELLS=cells.jsonl pytest tests/families`, then
`python -m tests.families.table cells.jsonl > docs/families.md`. A test holds this page against the tests
there are, so a "yes" is a test that runs with every change.

"""
MIDDLE = f"""

Text models: {", ".join(f"`{t}`" for t in SUPPORTED)}.

Refused by name: mixture-of-experts models, rotary positions that change with the prompt (`longrope`), linear
attention other than Qwen3.5's, checkpoints that need code of their own.

What is peculiar to two text models:

- **Gemma 4**: every layer's own inputs go with their token, and vanish with it. The last layers of the small
  models read the keys and values that earlier ones keep: they keep nothing, and of a prompt they run its last
  token alone, as Hugging Face's `generate` does, which is all that the prefill's ratio counts of them. A
  stage between a layer whose keys are shared and those that read them would give them sequences of two
  lengths: it is refused, and parts of `--stages` are parts of the layers before. Audio is left out, which an
  export tells.
- **Qwen3.5**: a token that a stage drops is not in the state of the linear layers behind it. Their state is a
  cache of constant size. ONNX Runtime runs the gated delta rule by its own kernel, in half the time of
  Hugging Face's chunks on one core; elsewhere its body scans the tokens.

## What was checked

Small checkpoints of each family with random weights, real processors and tokenizers on disk, CPU only.

- **ratio 1 = HF**: prompt ids, pixel values and visual features equal those of Hugging Face's processor and
  `get_image_features`, and 16 greedy tokens those of its `generate`; with one picture and with two.
- **OIM = HF merged by hand**: the tower with a merge along the width before layer 0 and one along the height
  deeper down equals Hugging Face's layers with hooks that merge token by token (positions and windows too).
- **pruned = HF with rows dropped**: prompt and 12 greedy tokens equal Hugging Face's decoder layers run
  without caches, rows dropped by numpy's FFT, masks spelled out from the definition.
- **ONNX Runtime fp32 = PyTorch**: compressed 1.5x (text variants, Pixtral's families, GLM-OCR and
  PaddleOCR-VL: one stage), every stage within 1e-4 of its scale, kept tokens and 64 greedy tokens equal.
- **ONNX Runtime fp16**: one merge and one pruned stage, at the limits for half precision (5e-2). PaliGemma's
  random weights are too sharp for it: Hugging Face's own logits move by up to 9 % in half precision.
- **TensorRT-RTX fp16 builds**: all three graphs of that bundle, with one fused attention a layer. Gemma 2
  caps its scores, which no fused kernel does: it builds unfused. Heads of 512, which Gemma 4's full layers
  have as published, have no fused kernel either; those checked here are smaller. Nothing was run on a GPU.
- **video**: a video of four frames at ratio 1 has the prompt, the pixel values (SmolVLM's, which are
  resized twice, within 0.03) and the answer of Hugging Face's processor and `generate`; of a longer one the
  same frames are shown, with the same times in the prompt; pruned, kept tokens and logits equal Hugging
  Face's decoder layers with rows dropped. *As images*: the family's processor takes no videos, and a layout
  of `--images N` shows N frames of one, the first of each N-th part, as N images in its place; prompt ids
  equal those of the processor for these images.

"""
TAIL = """

Accuracy on trained weights is not part of any of them.
"""


def main() -> None:
    """Print the page for some records."""
    found = passed(line for path in sys.argv[1:] for line in Path(path).read_text().splitlines())
    for name, cell in sorted(covered() - found):
        print(f"not passed: {name}, {cell}", file=sys.stderr)
    print(page(found), end="")


if __name__ == "__main__":
    main()
