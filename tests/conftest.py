"""Small checkpoints and bundles, made once for the whole run."""

import gc
import os
import shutil
import sys
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from luvc.engines import VLM, Bundle
from luvc.engines.bundle.schedule import ENERGY
from luvc.exporter import ExportConfig, export
from luvc.exporter.planning.defaults import DEFAULTS, PAPER
from luvc.tools.demo import random_checkpoint

Result = namedtuple("Result", "code out err")
TINY = {"layers": 4, "vision_layers": 2, "image": 168}  # 12 x 12 grid, 36 visual tokens a tile
WIDE = TINY | {"text": "qwen3", "hidden": 512, "head_dim": 128, "tied": False}
SMALL = ("--text-tokens", "8", "--text-capacity", "96")  # options for checkpoints of 112 x 112
RTX = {"backend": "tensorrt-rtx", "cutoff": 0.5}
HIGH = {"band": "high", "cutoff": 0.1}


@dataclass(frozen=True)
class Case:
    """One checkpoint shape and how it is exported."""

    name: str
    shape: dict
    options: dict


CASES = {
    c.name: c
    for c in (
        Case("qwen2", TINY | {"text": "qwen2"}, {"cutoff": 0.5}),
        Case("qwen2-defaults", TINY | {"text": "qwen2"}, vars(DEFAULTS)),
        Case("qwen2-energy", TINY | {"text": "qwen2"}, vars(DEFAULTS) | {"score": ENERGY}),
        Case(
            "qwen3-128-untied-tiles",
            TINY | {"image": 112, "text": "qwen3", "head_dim": 128, "tied": False},
            {"cutoff": 0.5, "image_sizes": ((112, 224),)},  # 2 tiles + thumbnail, V = 48
        ),
        Case("llama-untied", TINY | {"text": "llama", "tied": False}, {"cutoff": 0.1}),
        Case(
            "qwen2-two-images",
            TINY | {"head_dim": 128},
            {"images": (2,), "scope": "image", "cutoff": 0.1, "match": True},
        ),
        Case(
            "qwen2-layouts",
            {"layers": 2, "vision_layers": 1, "image": 56},
            {"images": (1, 2), "image_sizes": ((56, 56), (56, 112)), "check": False},
        ),
        Case(
            "qwen2-ratios",
            TINY | {"text": "qwen2"},
            HIGH | {"ratios": (1.5, 1, 2.5), "images": (1, 0), "oim_share": 0.0},
        ),
        Case("qwen2-text", TINY | {"text": "qwen2"}, HIGH | {"images": (1, 0)}),
        Case("qwen2-text-fp16", TINY | {"text": "qwen2"}, {"images": (0, 1), "dtype": "float16"}),
        Case("qwen2-fp16", TINY | {"text": "qwen2"}, HIGH | {"dtype": "float16"}),
        Case(
            "qwen2-defaults-fp16", TINY | {"text": "qwen2"}, vars(DEFAULTS) | {"dtype": "float16"}
        ),
        Case("qwen2-int8", TINY | {"text": "qwen2"}, {"cutoff": 0.5, "weights": "int8"}),
        Case(
            "qwen3-int4",
            TINY | {"text": "qwen3", "tied": False},
            {"cutoff": 0.5, "weights": "int4", "group_size": 64},
        ),
        Case(
            "qwen2-int8-fp16",
            TINY | {"text": "qwen2"},
            RTX | {"dtype": "float16", "weights": "int8", "check": False},
        ),
        Case(
            "qwen2-int4-fp16",
            TINY | {"text": "qwen2"},
            RTX | {"dtype": "float16", "weights": "int4"},
        ),
        Case("qwen2-bf16", TINY | {"text": "qwen2"}, RTX | {"dtype": "bfloat16"}),
        Case("qwen3-128-fp16", WIDE, RTX | {"dtype": "float16", "check": False}),
        Case("qwen3-128-bf16", WIDE, RTX | HIGH | {"dtype": "bfloat16"}),
    )
}


def pytest_collection_finish() -> None:
    """What was imported stays to the end: the collector, which exports keep busy, need not look at it."""
    gc.collect()
    gc.freeze()


class Workshop:
    """Makes checkpoints and bundles on demand and keeps them."""

    def __init__(self, root: Path):
        self.root = root

    def checkpoint(self, **shape) -> Path:
        """A checkpoint directory of this shape."""
        name = "-".join(f"{k}_{v}" for k, v in sorted(shape.items())) or "default"
        folder = self.root / "checkpoints" / name
        with FileLock(self.root / f"{name}.lock"):  # test processes share the workshop
            if not folder.exists():
                random_checkpoint.write(folder, **shape)
        return folder

    def bundle(self, case: str = "qwen2", ratio: float = 2.0) -> Bundle:
        """A bundle of a case; validated against PyTorch while it is made."""
        folder = self.root / "bundles" / f"{case}-{ratio:g}"
        with FileLock(self.root / f"{folder.name}.lock"):
            if not folder.exists():
                c = CASES[case]
                # as in the paper, so that every part has work
                options = vars(PAPER) | {"reference_text": 8, "text_capacity": 96}
                options |= {"ratios": (ratio,)} | c.options
                model = str(self.checkpoint(**c.shape))
                export(ExportConfig.make(model=model, output=folder, **options))
        return Bundle.load(folder)

    def vlm(self, case: str = "qwen2", ratio: float = 2.0) -> VLM:
        """A loaded bundle of a case."""
        return VLM.load(self.bundle(case, ratio).path, threads=1)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory) -> Workshop:
    torch.set_num_threads(1)
    root = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        root = root.parent
    root = root / "workshop"
    root.mkdir(exist_ok=True)
    return Workshop(root)


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    from luvc.engines.generated_pictures import generated_picture

    return generated_picture((200, 260), seed=7)


@pytest.fixture
def photo(tmp_path, picture) -> Path:
    """The picture as a file."""
    path = tmp_path / "photo.png"
    Image.fromarray(picture).save(path)
    return path


@pytest.fixture
def broken(workshop, tmp_path) -> Path:
    """A copy of a sharded checkpoint that a test may break."""
    source = workshop.checkpoint(layers=3, vision_layers=1, image=112, shard="400KB")
    target = tmp_path / "checkpoint"
    shutil.copytree(source, target)
    assert len(list(target.glob("*.safetensors"))) > 2
    return target


def ask(text: str, *images) -> list[dict]:
    """A conversation of one turn."""
    parts = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command's main() with arguments -> exit code and output."""
    from luvc import console

    monkeypatch.setattr(console.out, "width", 200)  # it reads COLUMNS only when it is made

    def run(module, *args) -> Result:
        monkeypatch.setattr(sys, "argv", ["luvc", *map(str, args)])
        capsys.readouterr()  # what making a checkpoint printed is not the command's
        try:
            module.main()
            code = 0
        except SystemExit as e:
            code = e.code or 0
        return Result(code, *capsys.readouterr())

    return run
