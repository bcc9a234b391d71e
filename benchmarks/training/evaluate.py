"""Exact match per task on PocketVQA, in PyTorch, and what guessing without looking reaches."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch

from luvc.tools.pocket.dataset import Record, example

from .learner import Learner, right_answers, to_device
from .loader import Group
from .packing import Packer

_LENGTH = {1: 192, 2: 352}
"""Tokens of a one-question sequence, for one and two pictures."""


def stack(records: Sequence[Record], packer: Packer) -> Group:
    """Make one group of records that have equally many pictures."""
    pictures = len(records[0].scenes)
    rows = [packer.pack(pictures, entry.questions, _LENGTH[pictures]) for entry in records]
    group = {
        name: np.stack([getattr(row, name) for row in rows])
        for name in ("ids", "segments", "positions", "targets")
    }
    group["pixels"] = np.stack([entry.pixels() for entry in records])
    group["labels"] = np.stack([entry.labels() for entry in records])
    return group


def prepare(
    split: str, count: int, packer: Packer, batch: int, scale: int = 1
) -> list[tuple[list[Record], Group]]:
    """Draw evaluation questions once, as batches.

    Args:
        split: "validation" or "test".
        count: number of questions.
        packer: makes the token sequences.
        batch: largest number of records of a batch.
        scale: how large pictures are drawn.
    """
    records = [replace(example(split, index), scale=scale) for index in range(count)]
    batches = []
    for pictures in (1, 2):
        same = [entry for entry in records if len(entry.scenes) == pictures]
        for start in range(0, len(same), batch):
            part = same[start : start + batch]
            batches.append((part, stack(part, packer)))
    return batches


@torch.no_grad()
def exact_match(
    learner: Learner,
    batches: Iterable[tuple[list[Record], Group]],
    device: torch.device,
    half: bool,
) -> dict[str, float]:
    """Share of questions that greedy decoding answers exactly, per task and "overall".

    Args:
        learner: the model.
        batches: what `prepare` made.
        device: where the model is.
        half: whether to run in bfloat16.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    training = learner.training
    learner.eval()
    for records, arrays in batches:
        group = to_device(arrays, device)
        # Other sizes than in training: compiling them would cost more than it saves.
        with (
            torch.compiler.set_stance("force_eager"),
            torch.autocast(device.type, torch.bfloat16, enabled=half),
        ):
            logits, _ = learner(group)
        for entry, good in zip(
            records, right_answers(logits, group["targets"]).tolist(), strict=True
        ):
            question = entry.questions[0]
            right[question.task].append(good)
            if question.task in ("ocr", "chart", "needle", "multi"):
                right[f"{question.task}: {question.detail}"].append(good)
            right["overall"].append(good)
    learner.train(training)
    return {task: sum(values) / len(values) for task, values in sorted(right.items())}


def text_only(records: Iterable[Record], examples: int = 20_000) -> dict[str, float]:
    """Exact match of the most frequent answer to each question text, pictures unseen.

    Args:
        records: evaluation questions.
        examples: how many training-split questions the answers are counted over.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for index in range(examples):
        question = example("train", index).questions[0]
        counts[question.text][question.answer] += 1
        counts[question.task][question.answer] += 1
    right: dict[str, list[bool]] = defaultdict(list)
    for entry in records:
        question = entry.questions[0]
        known = counts.get(question.text) or counts[question.task]
        right[question.task].append(known.most_common(1)[0][0] == question.answer)
    return {task: sum(values) / len(values) for task, values in right.items()}
