"""A checkpoint and a split's questions, ready to measure, and what results say about them."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer

from luvc.engines.bundle.folder import sha256

from ..files import read_json
from . import questions
from .study import Study

# options that the commands share
Model = Annotated[Path, typer.Argument(help="Checkpoint directory.")]
Device = Annotated[str, typer.Option(help="cuda or cpu; chosen by what is there.")]
Batch = Annotated[int | None, typer.Option(help="Questions at a time.")]
Workers = Annotated[int, typer.Option(help="Processes that draw pictures.")]
Output = Annotated[Path, typer.Option(help="Folder for the JSON files.")]


def stopwatch() -> Callable[[str], None]:
    """Prints lines, each behind the seconds since now."""
    start = time.monotonic()
    return lambda line: print(f"{time.monotonic() - start:6.0f} s  {line}", flush=True)


def load(
    model: Path, split: str, limit: int, device: str, batch: int | None, workers: int
) -> tuple[Study, dict]:
    """The study of a split and its header; pictures are drawn before the GPU is first used.

    Args:
        model: checkpoint directory.
        split: of PocketVQA.
        limit: questions.
        device: "cuda", "cpu" or "auto".
        batch: questions at a time; None: what a cache holds.
        workers: processes that draw pictures.
    """
    from transformers import AutoModelForImageTextToText

    from ..training.checkpoint import load_tokenizer

    groups = questions.load(split, limit, load_tokenizer(model), workers)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = batch or (32 if device == "cpu" else 400)
    torch.backends.cudnn.allow_tf32 = False
    loaded = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32)
    study = Study(loaded, groups, torch.device(device), batch)
    return study, _header(model, study, split)


def _header(model: Path, study: Study, split: str) -> dict:
    """On what, of which checkpoint, and the task of every question, in order."""
    import transformers

    device = study.device
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    return {
        "device": name,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "checkpoint": sha256(model / "model.safetensors"),
        "trained": read_json(model / "results.json"),
        "visual_tokens": study.span,
        "split": split,
        "tasks": study.tasks.tolist(),
    }
