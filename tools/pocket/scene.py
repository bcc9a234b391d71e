"""What is in a picture, as plain data: every answer is computed from it, never from pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from random import Random

from .vocabulary import SIZE

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class Item:
    """A coloured shape; `size` is the diameter of the circle around it, pixels."""

    shape: str
    colour: str
    x: float
    y: float
    size: int
    angle: int = 0

    @property
    def name(self) -> str:
        """Colour and shape, as questions call it."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Text:
    """A line of text with its top left corner at (x, y); `size` is the font size in pixels."""

    string: str
    colour: str
    x: float
    y: float
    size: int
    font: str
    panel: str | None
    """Colour of the box behind the text; None draws an outline around the letters instead."""
    box: Box = (0, 0, 0, 0)


@dataclass(frozen=True)
class Chart:
    """A bar chart, line chart or table; `values` holds one row per table row, else a single row."""

    kind: str
    labels: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    box: Box
    colour: str
    dark: bool
    printed: bool
    """Whether bars and points carry their value as text."""


@dataclass(frozen=True)
class Background:
    """A crop of a photograph or texture, blended with a plain colour by `veil` (0 .. 1)."""

    kind: str
    name: str
    crop: Box
    tint: tuple[int, int, int]
    veil: float


@dataclass(frozen=True)
class Scene:
    """One picture."""

    background: Background
    items: tuple[Item, ...] = ()
    texts: tuple[Text, ...] = ()
    chart: Chart | None = None


@dataclass(frozen=True)
class Question:
    """A question with its one right answer; no options means a free answer (chance 0)."""

    task: str
    text: str
    answer: str
    options: tuple[str, ...] = ()
    detail: str = ""
    """Kind of question within the task, for finer reports."""

    @property
    def chance(self) -> float:
        """Probability of a right answer when drawing one of the options."""
        return 1 / len(self.options) if self.options else 0.0


def enlarged(scene: Scene, scale: int) -> Scene:
    """The same scene with everything on it `scale` times as large; the background keeps its crop."""

    def box(of: Box) -> Box:
        return (of[0] * scale, of[1] * scale, of[2] * scale, of[3] * scale)

    def larger(thing: Item | Text) -> dict[str, float | int]:
        return {"x": thing.x * scale, "y": thing.y * scale, "size": thing.size * scale}

    return replace(
        scene,
        items=tuple(replace(item, **larger(item)) for item in scene.items),
        texts=tuple(replace(text, **larger(text), box=box(text.box)) for text in scene.texts),
        chart=scene.chart and replace(scene.chart, box=box(scene.chart.box)),
    )


def overlaps(box: Box, others: Iterable[Box], gap: float = 3) -> bool:
    """Whether a box comes nearer than `gap` pixels to any of the others."""
    left, top, right, bottom = box
    return any(
        left < o[2] + gap and o[0] < right + gap and top < o[3] + gap and o[1] < bottom + gap
        for o in others
    )


def place(
    rng: Random, width: float, height: float, taken: list[Box], tries: int = 40
) -> Box | None:
    """Draw a free box of the given size inside the picture and add it to `taken`.

    Returns:
        The box, or None when the picture is too full.
    """
    for _ in range(tries):
        x = rng.uniform(2, SIZE - 2 - width)
        y = rng.uniform(2, SIZE - 2 - height)
        box = (x, y, x + width, y + height)
        if not overlaps(box, taken):
            taken.append(box)
            return box
    return None
