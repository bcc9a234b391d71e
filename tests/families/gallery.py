"""Checkpoints, Hugging Face models and bundles of the families, made once for the whole run."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from luvc.engines import VLM, Bundle
from luvc.engines.bundle.manifest import Manifest
from luvc.engines.bundle.schedule import ENERGY, Merge, Prune, Schedule
from luvc.engines.generated_pictures import generated_picture
from luvc.exporter import ExportConfig, export, plan
from luvc.exporter.check.torch_runner import TorchRunner
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.checkpoint.weights import load_model
from luvc.exporter.planning.defaults import PAPER

from . import reference, shapes
from .checkpoints import NAMES, family_of, write

QUESTION = "What is this?"
SHORT = {"reference_text": 8, "text_capacity": 96}
# One merge and one stage: half the tracing of what the solver makes of 1.5x.
BRIEF = Schedule(
    score=ENERGY.having(cutoff=0.5),
    vision=(Merge(layer=1, axis="width", group=2),),
    language=(Prune(layer=2, keep=5),),
)
BUNDLES: dict[str, dict[str, Any]] = {
    "plain": {"ratio": 1, "check": False, "images": (1, 0)},
    "compressed": {"ratio": 1.5, "stages": (0.25,)},
    "half": {"schedule": BRIEF, "dtype": "float16", "backend": "tensorrt-rtx"},
}
# Sizes at which a family shows what sets it apart: tiles, padding to pack, windows of unequal size.
SIZES: dict[str, tuple[int, int]] = {
    "internvl": (168, 336),
    "llava_next": (112, 150),
    "llava_onevision": (120, 180),
    "qwen2_vl": (112, 140),
    "qwen2_5_vl": (168, 140),
    "qwen3_vl": (128, 160),
    "qwen3_5": (128, 160),
    "glm4v": (140, 112),
    "glm_ocr": (140, 112),
    "lighton_ocr": (140, 112),
    "mistral3": (112, 140),
    "paddleocr_vl": (112, 140),
    "gemma4": (72, 120),
    "smolvlm": (192, 384),
    "idefics3": (384, 192),
    "ovis2": (168, 336),
    "lfm2_vl": (192, 160),
}


def apart(value: str, torchvision: bool, slow: bool = False) -> Any:
    """A test parameter that is skipped where torchvision is needed and missing.

    test_with_torchvision.py runs what is skipped, in a process that has it. Tests of one value share
    checkpoints and bundles, so they run in one process.
    """
    from transformers.utils.import_utils import is_torchvision_available

    missing = torchvision and not is_torchvision_available()
    skip = pytest.mark.skipif(missing, reason="needs torchvision")
    marks = [
        skip,
        pytest.mark.xdist_group(f"family-{value}"),
        *([pytest.mark.slow] if slow else []),
    ]
    return pytest.param(value, marks=marks)


def names(*families: str) -> list[Any]:
    """All names as test parameters, or those of some families."""
    chosen = [n for n in NAMES if not families or family_of(n) in families]
    return [apart(n, family_of(n) == "lfm2_vl") for n in chosen]


# Families whose bundles are made where all tests run: single layers are traced one by one, or scanned ...
LATE = ("gemma4", "qwen3_5")
# ... or another family's tower is theirs too, and its adapter runs all of their code that is in a graph.
HELD_BY = {"idefics3": "smolvlm", "lighton_ocr": "mistral3"}


def exported(*quick: str) -> list[Any]:
    """All names, for tests that need a bundle of each; slow but for some, or for one name a family."""
    chosen = quick or [n for n in shapes.FAMILIES if n not in (*LATE, *HELD_BY)]
    return [apart(n, family_of(n) == "lfm2_vl", n not in chosen) for n in NAMES]


def families() -> list[Any]:
    """One name a family."""
    return [p for p in names() if p.values[0] in shapes.FAMILIES]


def bundled() -> list[Any]:
    """One name a family, for tests that need a bundle of each."""
    return [p for p in exported() if p.values[0] in shapes.FAMILIES]


def size_of(name: str) -> tuple[int, int] | None:
    """(height, width) of a name's pictures; None for families with one size."""
    return SIZES.get(family_of(name))


# Random weights too sharp for half precision: Hugging Face's own logits move by up to 9 %.
SHARP = ("paligemma",)

# Families exported under a brief schedule: what the solver makes is tried on the others' towers.
BRIEFLY = ("glm_ocr", "lighton_ocr", "mistral3", "paddleocr_vl")


def bundle_options(name: str, kind: str) -> dict[str, Any]:
    """How a bundle is exported; variants of a family are told apart by a brief schedule too."""
    if kind == "compressed" and (name in BRIEFLY or name not in shapes.FAMILIES):
        return {"schedule": BRIEF}
    checked = kind != "half" or family_of(name) not in SHARP
    return BUNDLES[kind] | ({} if checked else {"check": False})


def only_once(step: str) -> None:
    """Each kind of layer of every family is traced once (layer_copies.Unlike, composites.Composite)."""
    assert " again, " not in step, step


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
        given = {"schedule", "method"} & options.keys()
        solver = {} if given else vars(PAPER) | {"cutoff": 0.5}  # OIM has work too
        usual = SHORT | sizes | solver | options
        return ExportConfig.make(model=str(self.checkpoint(name)), **usual)

    def bundle(self, name: str, kind: str) -> Bundle:
        """A bundle of a kind in `BUNDLES`; validated against PyTorch while it is made."""
        folder = self.root / "bundles" / f"{name}-{kind}"
        with FileLock(self.root / f"{folder.name}.lock"):
            if not folder.exists():
                config = self.config(name, output=folder, **bundle_options(name, kind))
                export(config, only_once, family=self.family(name))
        return Bundle.load(folder)

    def in_pytorch(self, name: str, **options: Any) -> VLM:
        """What a bundle exported with these options would be, run in PyTorch; nothing is traced."""
        config, family = self.config(name, **options), self.family(name)
        folder = self.root / "processors" / name
        with FileLock(self.root / f"{name}-processor.lock"):
            if not folder.exists():
                family.tokenizer.save_pretrained(folder / "processor")
                family.image_processor.save_pretrained(folder / "processor")
                answers = "generation_config.json"
                shutil.copy(self.checkpoint(name) / answers, folder / "processor" / answers)
        manifest = Manifest(
            created="",
            model=config.model,
            family=family.config.model_type,
            dtype="float32",
            language=family.language,
            layouts=plan(config, family),
            parameters=0,
            text_capacity=config.text_capacity,
            reference_text=config.reference_text,
        )
        runner = TorchRunner(load_model(family), family, config.text_capacity)
        return VLM(Bundle(folder, manifest), runner)


def pictures(size: tuple[int, int], count: int) -> list[Any]:
    """Generated PIL images."""
    from PIL import Image

    return [Image.fromarray(generated_picture(size, seed=40 + i)) for i in range(count)]


def question(images: list[Any], text: str = QUESTION) -> list[dict]:
    """A conversation of one turn."""
    parts = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
