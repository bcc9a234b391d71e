"""OIM steps that shorten the vision tower by a ratio, where its exit gives the grid back.

The steps are small and early: both axes lose the same part of what they have, never more than a fifth at
once and never half in all, before an eighth of the tower's layers and then a quarter of them apart. That
is what cost least on validation (docs/how-luvc-works.md). The tower's ratio is baseline / compressed FLOPs
of the tower and the projector, Ratios.vision.
"""

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from ...engines.bundle.schedule import Axis, Merge, Schedule
from ...errors import LuvcError
from .defaults import SolverOptions
from .grid import Grid, group_for, thinned
from .problem import Problem

LARGEST = Fraction(1, 5)
"""Of an axis that one step may take."""
LEFT = Fraction(1, 2)
"""Of an axis, more than this stays in all."""
FIRST, APART = Fraction(1, 8), Fraction(1, 4)
"""Where the steps stand, as parts of the tower's layers."""
MOST = 3
"""Steps of each axis: a later one has too few layers behind it to save anything."""
SAMPLES = 32
"""Parts of an axis that are tried, up to the largest."""
TOLERANCE = 1.02
"""Of a ratio: what lies that near above is as good."""
AXES: tuple[Axis, Axis] = ("width", "height")

Lengths = tuple[int, ...]


@dataclass(frozen=True)
class TowerSteps:
    """One way to shorten a tower.

    Attributes:
        ratio: baseline / compressed FLOPs of the tower, giving the grid back included.
        merges: OIM steps.
        steps: places in the tower where they stand.
        largest: part of an axis that the largest of them takes.
    """

    ratio: float
    merges: tuple[Merge, ...]
    steps: int
    largest: Fraction


def tower_steps(problem: Problem, ratio: float, match: bool) -> tuple[Merge, ...]:
    """The best steps for a ratio of the tower: at least that, nearest above.

    Within 2 % above, fewer steps are better, then smaller ones. Lengths are whole, so on a small grid the
    ratio may lie farther above. Ratio 1 needs none.

    Args:
        problem: the layout.
        ratio: baseline / compressed FLOPs of the tower.
        match: the most similar neighbours are merged, inside the tower's windows where it has any.

    Raises:
        LuvcError: the ratio is above the largest feasible one, which it names.
    """
    if ratio <= 1:
        return ()
    choices = tower_choices(problem, match)
    enough = [c for c in choices if c.ratio >= ratio]
    if not enough:
        raise LuvcError(_refusal(problem, ratio, max((c.ratio for c in choices), default=1.0)))
    nearest = min(c.ratio for c in enough)
    near = [c for c in enough if c.ratio <= max(nearest, ratio * TOLERANCE)]
    return min(near, key=lambda c: (c.steps, c.largest, c.ratio)).merges


def tower_steps_within(problem: Problem, ratio: float, match: bool) -> tuple[Merge, ...]:
    """The steps of the largest ratio of the tower that is at most this one; none where there is none."""
    within = [c for c in tower_choices(problem, match) if c.ratio <= ratio * (1 + 1e-9)]
    best = max(within, key=lambda c: (c.ratio, -c.steps, -c.largest), default=None)
    return best.merges if best else ()


def largest_tower_ratio(problem: Problem, match: bool) -> float:
    """The largest ratio of the tower that there are steps for; 1 where there are none."""
    return max((c.ratio for c in tower_choices(problem, match)), default=1.0)


def restored_steps(problem: Problem, ratio: float, options: SolverOptions) -> tuple[Merge, ...]:
    """OIM steps whose grid is given back: of the tower's own ratio, or of its share of the ratio.

    Raises:
        LuvcError: the tower's ratio is not feasible; names the largest.
    """
    if not options.restore:
        return ()
    if options.tower_ratio > 1:
        return tower_steps(problem, options.tower_ratio, options.match)
    return tower_steps_within(problem, ratio**options.oim_share, options.match)


def merging(vision: tuple[Merge, ...], options: SolverOptions) -> dict[str, Any]:
    """OIM steps and how they merge, as fields of a schedule; nothing of it without steps."""
    if not vision:
        return {}
    return {"vision": vision, "match": options.match, "restore": options.restore}


@lru_cache(maxsize=16)
def tower_choices(problem: Problem, match: bool) -> tuple[TowerSteps, ...]:
    """Every way to shorten the tower that is considered, none of which adds work; by rising ratio."""
    layers = step_layers(problem.encoder.layers)
    found = []
    for count in range(1, len(layers) + 1):
        for lengths in _all_lengths(problem, count, match):
            choice = _choice(problem, layers[:count], lengths, match)
            if choice.ratio > 1:
                found.append(choice)
    return tuple(sorted(found, key=lambda c: (c.ratio, c.steps, c.largest)))


def step_layers(layers: int) -> tuple[int, ...]:
    """Layers before which the steps stand, in a tower of so many; never before the first."""
    at = (max(1, round(layers * (FIRST + i * APART))) for i in range(MOST))
    return tuple(sorted({layer for layer in at if layer < layers}))


def _choice(
    problem: Problem, layers: tuple[int, ...], lengths: dict[Axis, Lengths], match: bool
) -> TowerSteps:
    merges, largest = [], Fraction(0)
    for i, layer in enumerate(layers):
        for axis in AXES:
            before, after = lengths[axis][i : i + 2]
            group = group_for(before, after)
            if group is not None:
                merges.append(Merge(layer=layer, axis=axis, group=group))
                largest = max(largest, Fraction(before - after, before))
    schedule = Schedule(vision=tuple(merges), restore=True, match=match)
    ratio = problem.vision_flops(Schedule()) / problem.vision_flops(schedule)
    return TowerSteps(ratio, schedule.vision, len(layers), largest)


def _all_lengths(problem: Problem, count: int, match: bool) -> list[dict[Axis, Lengths]]:
    """Lengths of both axes before the first step and after each of `count`, of which each takes some."""
    found: dict[tuple[Lengths, Lengths], None] = {}
    for i in range(1, SAMPLES + 1):
        part = LARGEST * i / SAMPLES
        whole = {axis: (problem.grid.length(axis),) for axis in AXES}
        spans = problem.spans if match else whole
        wide, high = (_lengths(spans[axis], part, count) for axis in AXES)
        found |= dict.fromkeys(itertools.product(wide, high))
    return [
        {"width": w, "height": h}
        for w, h in found
        if all(a > b or c > d for (a, b), (c, d) in zip(_pairs(w), _pairs(h), strict=True))
    ]


def _pairs(lengths: Lengths) -> list[tuple[int, int]]:
    return list(itertools.pairwise(lengths))


def _lengths(spans: tuple[int, ...], part: Fraction, count: int) -> set[Lengths]:
    """Lengths of an axis that loses nearly `part` of what it has at each step, rounded either way.

    Args:
        spans: windows along the axis, of which those of one length lose equally many.
        part: of the axis.
        count: steps.
    """
    found: set[Lengths] = set()
    length = sum(spans)

    def extend(done: Lengths, spans: tuple[int, ...]) -> None:
        if len(done) > count:
            found.add(done)
            return
        target = length * (1 - part) ** len(done)
        possible = [n for n in _reachable(done[-1], spans) if n > LEFT * length]
        for n in {_below(possible, target), _above(possible, target)}:
            extend((*done, n), thinned(spans, done[-1] - n))

    extend((length,), spans)
    return found


@lru_cache(maxsize=1024)
def _reachable(length: int, spans: tuple[int, ...]) -> tuple[int, ...]:
    """Lengths that one step may leave: itself, and what takes at most a fifth and as much of each window."""
    lengths = (length - gone for gone in range(1, int(length * LARGEST) + 1))
    shorter = (n for n in lengths if group_for(length, n) is not None)
    return (length, *(n for n in shorter if _even(spans, thinned(spans, length - n))))


def _even(spans: tuple[int, ...], left: tuple[int, ...]) -> bool:
    """Whether windows of one length keep one length."""
    return len(set(zip(spans, left, strict=True))) == len(set(spans))


def _below(lengths: list[int], target: Fraction) -> int:
    """The largest that is at most the target, or the smallest of all."""
    return max((n for n in lengths if n <= target), default=min(lengths))


def _above(lengths: list[int], target: Fraction) -> int:
    """The smallest that is at least the target, or the largest of all."""
    return min((n for n in lengths if n >= target), default=max(lengths))


def _refusal(problem: Problem, ratio: float, largest: float) -> str:
    grid: Grid = problem.grid
    most = f"{math.floor(largest * 100) / 100:g}x"
    return (
        f"--tower-ratio {ratio:g}x is not feasible for a grid of {grid.h}x{grid.w} and "
        f"{problem.encoder.layers} layers: OIM takes at most a fifth of an axis at once and leaves more than "
        f"half, which gives {most}; ask for that or less, or give a --schedule"
    )
