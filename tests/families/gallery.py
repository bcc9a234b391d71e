"""Checkpoints, Hugging Face models and bundles of the families, made once for the whole run."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from luvc.engines import VLM, Bundle
from luvc.engines.validate import sample_picture
from luvc.exporter import ExportConfig, export, pipeline
from luvc.exporter.attention import NAME
from luvc.exporter.checkpoint import load_model
from luvc.exporter.family import Family
from luvc.exporter.torch_runner import TorchRunner

from . import reference, shapes
from .checkpoints import NAMES, family_of, write

QUESTION = "What is this?"
SHORT = {"reference_text": 8, "text_capacity": 96, "cutoff": 0.5}
# Sizes at which a family shows what sets it apart: tiles, padding to pack, windows of unequal size.
SIZES: dict[str, tuple[int, int]] = {
    "internvl": (168, 336),
    "llava_next": (112, 150),
    "llava_onevision": (120, 180),
    "qwen2_vl": (112, 140),
    "qwen2_5_vl": (168, 140),
    "qwen3_vl": (128, 160),
    "glm4v": (140, 112),
    "smolvlm": (192, 384),
    "idefics3": (384, 192),
    "ovis2": (168, 336),
    "lfm2_vl": (192, 160),
}


def names() -> list[Any]:
    """All names as parameters; those whose processor needs torchvision are skipped without it.

    test_with_torchvision.py runs them in a process that has it.
    """
    from transformers.utils import is_torchvision_available

    skip = pytest.mark.skipif(not is_torchvision_available(), reason="needs torchvision")
    apart = {n for n in NAMES if family_of(n) == "lfm2_vl"}
    return [pytest.param(n, marks=[skip]) if n in apart else n for n in NAMES]


def families() -> list[Any]:
    """The same, one name a family."""
    return [p for p in names() if (p if isinstance(p, str) else p.values[0]) in shapes.FAMILIES]


def size_of(name: str) -> tuple[int, int] | None:
    """(height, width) of a name's pictures; None for families with one size."""
    return SIZES.get(family_of(name))


class Gallery:
    """Makes what the tests of the families share, and keeps it.

    Args:
        root: folder that all test processes share.
    """

    def __init__(self, root: Path):
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def checkpoint(self, name: str) -> Path:
        """The checkpoint directory of a name."""
        folder = self.root / "checkpoints" / name
        with FileLock(self.root / f"{name}.lock"):
            if not folder.exists():
                write(name, folder)
        return folder

    @cache  # noqa: B019 one gallery a process
    def hugging_face(self, name: str) -> tuple[Any, Any]:
        """Hugging Face's model and processor."""
        return reference.load(self.checkpoint(name))

    @cache  # noqa: B019
    def family(self, name: str) -> Family:
        """The checkpoint as the exporter sees it."""
        return Family.load(str(self.checkpoint(name)))

    def config(self, name: str, **options: Any) -> ExportConfig:
        """What the tests ask of an export."""
        size = size_of(name)
        sizes = {} if size is None else {"image_sizes": (size,)}
        return ExportConfig.make(model=str(self.checkpoint(name)), **SHORT | sizes | options)

    def bundle(self, name: str, **options: Any) -> Bundle:
        """A bundle, exported as asked for; validated against PyTorch while it is made."""
        words = [name, *(f"{k}_{v}" for k, v in sorted(options.items()))]
        folder = self.root / "bundles" / "-".join(words)
        with FileLock(self.root / f"{folder.name}.lock"):
            if not folder.exists():
                export(self.config(name, output=folder, **options), family=self.family(name))
        return Bundle.load(folder)

    def in_pytorch(self, name: str, **options: Any) -> VLM:
        """The same, run by the graph modules in PyTorch; nothing is traced."""
        config, family = self.config(name, **options), self.family(name)
        layouts = pipeline.plan(config, family)
        model = load_model(family, torch.float32)
        model.set_attn_implementation(NAME)
        folder = self.root / "processors" / name
        with FileLock(self.root / f"{name}-processor.lock"):
            if not folder.exists():
                pipeline._write_processor(family, model, folder / "processor")
        bundle = Bundle(folder, pipeline._manifest(config, family, layouts, 0))
        return VLM(bundle, TorchRunner(model, family, config.text_capacity))


def pictures(size: tuple[int, int], count: int) -> list[Any]:
    """Generated PIL images."""
    from PIL import Image

    return [Image.fromarray(sample_picture(size, seed=40 + i)) for i in range(count)]


def question(images: list[Any], text: str = QUESTION) -> list[dict]:
    """A conversation of one turn."""
    parts = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
