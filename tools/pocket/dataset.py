"""PocketVQA: pictures and questions from a seed, in splits that cannot overlap.

A seed fixes everything: `record(seed)` is a training record (pictures with several questions),
`example(split, index)` one evaluation question with pictures of its own. Splits are ranges of
seeds, so a picture of one split is never drawn for another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from random import Random

import numpy as np
from PIL import Image

from ...errors import LuvcError
from . import backgrounds, charts, lists, objects, pairs, texts
from .drawing import Canvas
from .render import render
from .scene import Box, Question, Scene
from .vocabulary import PHOTOS, SIZE, TASKS

SPLITS = {
    "train": range(0, 1 << 40),
    "validation": range(1 << 40, (1 << 40) + (1 << 20)),
    "test": range(1 << 41, (1 << 41) + (1 << 20)),
}
TEST_QUESTIONS = 2000
"""Size of the fixed test set: 200 questions a task."""
FINEST = 4
"""Largest scale of pictures that a model is asked about: at 768 x 768 no letter is finer than its font."""


def build_photo(rng: Random, taken: list[Box]) -> Scene:
    """Draw a scene that is a large crop of a photograph, sometimes with a few shapes on it."""
    background = backgrounds.sample_photo(
        rng, rng.choice(tuple(PHOTOS)), 0.7, (128, 128, 128), rng.uniform(0, 0.2)
    )
    items = objects.random_items(rng, taken, rng.randint(1, 3)) if rng.random() < 0.3 else []
    return Scene(background, tuple(items))


def ask_photo(rng: Random, scene: Scene) -> Question | None:
    """Ask what the photograph in the background shows."""
    if scene.background.kind != "photo":
        return None
    text = rng.choice(("What does the photo show?", "What is in the photo?"))
    return Question("photo", text, scene.background.name, tuple(PHOTOS))


BUILDERS: dict[str, Callable[[Random, list[Box]], Scene]] = {
    "colour": objects.build_mixed,
    "shape": objects.build_mixed,
    "count": objects.build_count,
    "relation": objects.build_mixed,
    "compare": objects.build_compare,
    "ocr": texts.build_text,
    "chart": charts.build_chart,
    "needle": objects.build_needle,
    "photo": build_photo,
    "page": texts.build_page,
}
"""Makers of one-picture scenes; "page" is for training alone: more to read per picture."""
ASKERS: dict[str, Callable[[Random, Scene], Question | None]] = {
    "colour": objects.ask_colour,
    "shape": objects.ask_shape,
    "count": objects.ask_count,
    "relation": objects.ask_relation,
    "compare": objects.ask_compare,
    "ocr": texts.ask_text,
    "chart": charts.ask_chart,
    "needle": objects.ask_needle,
    "photo": ask_photo,
    "page": texts.ask_text,
}
_SECONDARY = {
    "colour": ("shape", "relation", "compare", "count"),
    "shape": ("colour", "relation", "compare", "count"),
    "count": ("colour", "shape", "relation", "compare"),
    "relation": ("colour", "shape", "compare", "count"),
    "compare": ("colour", "shape", "relation", "count"),
    "ocr": ("colour", "shape", "relation", "ocr"),
    "chart": (),
    "needle": ("count",),
    "photo": ("colour", "shape", "relation"),
    "page": ("colour", "shape", "relation"),
}
"""Other tasks that a training record's scene is asked about; a scene built for another task would
skew their answers, so evaluation asks only what the scene was built for."""


@dataclass(frozen=True)
class Record:
    """Pictures with questions about them."""

    seed: int
    scenes: tuple[Scene, ...]
    questions: tuple[Question, ...]

    scale: int = 1
    """Pixels along an edge for each of a scene's: 2 draws the same pictures finer."""

    @cached_property
    def canvases(self) -> tuple[Canvas, ...]:
        """The drawn scenes, with their labels."""
        return tuple(render(scene, self.scale) for scene in self.scenes)

    @property
    def pictures(self) -> tuple[Image.Image, ...]:
        """The pictures, RGB, `scale` times 192 x 192."""
        return tuple(canvas.image for canvas in self.canvases)

    def pixels(self) -> np.ndarray:
        """The pictures as uint8 [pictures, height, width, 3]."""
        return np.stack([np.asarray(picture) for picture in self.pictures])

    def labels(self) -> np.ndarray:
        """Per-cell content and colour classes, uint8 [pictures, 2, rows, columns]."""
        return np.stack([canvas.labels() for canvas in self.canvases])


def _build(rng: Random, task: str) -> tuple[Scene, ...]:
    if task == "multi":
        return pairs.build_pair(rng)
    return (BUILDERS[task](rng, []),)


def _ask(rng: Random, task: str, scenes: tuple[Scene, ...]) -> Question | None:
    if len(scenes) == 2:
        ask = lists.ask_pair_list if task == lists.LIST else pairs.ask_pair
        return ask(rng, (scenes[0], scenes[1]))
    return lists.ask_list(rng, scenes[0]) if task == lists.LIST else ASKERS[task](rng, scenes[0])


def _check(seed: int, split: str) -> None:
    if split not in SPLITS:
        raise LuvcError(f"Unknown split {split!r}; choose one of {', '.join(SPLITS)}.")
    if seed not in SPLITS[split]:
        limits = SPLITS[split]
        raise LuvcError(
            f"Seed {seed} is outside the {split} split, {limits.start} to {limits.stop - 1}; "
            "take a seed of that range."
        )


def record(seed: int, task: str, limit: int = 12) -> Record:
    """Make a training record: one scene (two for "multi") and several different questions.

    Args:
        seed: a seed of the training split.
        task: the task the scene is built for, or "page".
        limit: most questions.

    Raises:
        LuvcError: the seed belongs to another split.
    """
    _check(seed, "train")
    rng = Random(seed)
    questions: list[Question] = []
    while not questions:
        scenes = _build(rng, task)
        questions = _ask_all(rng, task, scenes, limit)
    rng.shuffle(questions)
    listed = [_ask(rng, lists.LIST, scenes) for _ in range(2)]
    # First, so that packing cuts others off.
    kept = {question.text: question for question in listed if question}
    return Record(seed, scenes, (*kept.values(), *questions)[:limit])


def _ask_all(rng: Random, task: str, scenes: tuple[Scene, ...], limit: int) -> list[Question]:
    """Ask a scene everything that it is fit for, without repeating a question."""
    kinds = [task] * (2 * limit)
    if task != "multi":
        kinds += [other for other in _SECONDARY[task] for _ in range(2)]
    found: dict[str, Question] = {}
    for kind in kinds:
        question = _ask(rng, kind, scenes)
        if question:
            found.setdefault(question.text, question)
    return list(found.values())


def scale_for(size: tuple[int, int]) -> int:
    """How fine to draw pictures that a model is shown in (height, width) pixels: as fine as it can see."""
    return min(max(min(size) // SIZE, 1), FINEST)


def example(split: str, index: int, scale: int = 1) -> Record:
    """Make one evaluation question; its task is TASKS[index % 10].

    Args:
        split: "validation" or "test" (or "train", for a baseline that sees no pictures).
        index: number of the question within the split.
        scale: of its pictures, see `Record`.

    Raises:
        LuvcError: the split or the index does not exist.
    """
    if split not in SPLITS:
        raise LuvcError(f"Unknown split {split!r}; choose one of {', '.join(SPLITS)}.")
    seed = SPLITS[split].start + index
    _check(seed, split)
    rng, task = Random(seed), TASKS[index % len(TASKS)]
    while True:
        scenes = _build(rng, task)
        # A scene can be unfit for every question of a kind: try some, then draw another.
        for _ in range(8):
            question = _ask(rng, task, scenes)
            if question:
                return Record(seed, scenes, (question,), scale)


def chance_levels(records: Iterable[Record]) -> dict[str, float]:
    """Mean probability per task of guessing right among the options, 0 .. 1."""
    chances: dict[str, list[float]] = defaultdict(list)
    for entry in records:
        for question in entry.questions:
            chances[question.task].append(question.chance)
    return {task: sum(values) / len(values) for task, values in chances.items()}
