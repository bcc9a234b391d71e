"""A checkpoint and a split's questions, ready to measure, and what results say about them."""

import hashlib
import json
import os
from pathlib import Path

import torch

from . import questions
from .study import Study


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

    from luvc.tools.pocket.checkpoint import load_tokenizer

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

    weights = hashlib.sha256()
    for file in sorted(model.glob("*.safetensors")):
        weights.update(file.read_bytes())
    device = study.device
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    return {
        "device": name, "torch": torch.__version__,
        "transformers": transformers.__version__, "checkpoint": weights.hexdigest(),
        "trained": _trained(model), "visual_tokens": study.span,
        "split": split, "tasks": study.tasks.tolist(),
    }  # fmt: skip


def _trained(model: Path) -> dict | None:
    """What results.json beside a trained checkpoint says of its training; None if there is none."""
    path = model / "results.json"
    return json.loads(path.read_text()) if path.is_file() else None
