"""A checkpoint and a split's questions, ready to measure, and what results say about them."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer

from luvc.engines.bundle.folder import sha256
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.checkpoint.weights import load_model, weight_files
from luvc.exporter.layouts.planned import image_geometry
from luvc.exporter.typed import parse_size
from luvc.tools.pocket.dataset import scale_for

from ..files import read_json
from . import questions
from .study import Study

# options that the commands share
Model = Annotated[str, typer.Argument(help="Checkpoint directory, hub id or ID@REVISION.")]
Device = Annotated[str, typer.Option(help="cuda or cpu; chosen by what is there.")]
Batch = Annotated[int | None, typer.Option(help="Questions at a time.")]
Workers = Annotated[int, typer.Option(help="Processes that draw pictures.")]
ImageSize = Annotated[
    str | None, typer.Option(help="HxW that pictures are shown in; default as luvc-export's.")
]
Output = Annotated[Path, typer.Option(help="Folder for the JSON files.")]


def stopwatch() -> Callable[[str], None]:
    """Prints lines, each behind the seconds since now."""
    start = time.monotonic()
    return lambda line: print(f"{time.monotonic() - start:6.0f} s  {line}", flush=True)


def load(
    model: str,
    split: str,
    limit: int,
    device: str = "auto",
    batch: int | None = None,
    workers: int = 0,
    image_size: str | None = None,
) -> tuple[Study, dict]:
    """The study of a split and its header; pictures are drawn before the GPU is first used.

    Args:
        model: checkpoint directory, hub id or ID@REVISION.
        split: of PocketVQA.
        limit: questions.
        device: "cuda", "cpu" or "auto".
        batch: questions at a time; None: what a cache holds.
        workers: processes that draw pictures.
        image_size: as HxW; None: the family's smallest usual one.

    Raises:
        LuvcError: no checkpoint of a supported family, or a size that it cannot have.
    """
    family = Family.load(model)
    size = image_geometry(family, parse_size(image_size) if image_size else None).size
    items = questions.load(split, limit, workers, scale_for(size))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = batch or (32 if device == "cpu" else 400)
    torch.backends.cudnn.allow_tf32 = False
    study = Study(load_model(family), family, items, device, batch, size)
    return study, _header(study, split)


def _header(study: Study, split: str) -> dict:
    """On what, of which checkpoint, and the task of every question, in order."""
    import transformers

    device, family = study.runner.device, study.family
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    return {
        "device": name,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "checkpoint": " ".join(sha256(file) for file in weight_files(family)),
        "trained": read_json(family.folder / "results.json"),
        "image_size": study.image_size,
        "visual_tokens": study.span,
        "split": split,
        "tasks": study.tasks.tolist(),
    }
