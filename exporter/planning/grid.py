"""Vision token grids and what OIM steps make of them: integers only, no torch."""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from ...engines.bundle.schedule import Axis, Merge
from ...errors import LuvcError


@dataclass(frozen=True)
class Grid:
    """A rectangle of vision tokens: `h` rows, `w` columns."""

    h: int
    w: int

    @property
    def tokens(self) -> int:
        """N = h * w."""
        return self.h * self.w

    def length(self, axis: Axis) -> int:
        """Tokens along an axis."""
        return self.w if axis == "width" else self.h

    def with_length(self, axis: Axis, length: int) -> "Grid":
        """The grid with another length along one axis."""
        return Grid(self.h, length) if axis == "width" else Grid(length, self.w)


def merged_length(length: int, group: int, multiple: int) -> int:
    """Tokens left of `length` when every `group` neighbours become group - 1.

    Rounded up to the multiple the projector needs; the surplus stays unmerged at the end.
    """
    return min(length, math.ceil((length - length // group) / multiple) * multiple)


def merge_grid(grid: Grid, merge: Merge, multiple: Grid) -> Grid:
    """The grid after one OIM step; `multiple` is what the projector needs along each axis."""
    length = merged_length(grid.length(merge.axis), merge.group, multiple.length(merge.axis))
    return grid.with_length(merge.axis, length)


def group_for(length: int, left: int) -> int | None:
    """The group whose step leaves `left` of `length` tokens where nothing is rounded; None: there is none.

    Of several it is the largest, which spreads the merged pairs most evenly.
    """
    group = length // (length - left) if left < length else None
    return group if group and length - length // group == left else None


def windows(length: int, side: int) -> tuple[int, ...]:
    """Lengths of windows of `side` tokens along an axis; the last one has what is left."""
    whole, rest = divmod(length, side)
    return (side,) * whole + ((rest,) if rest else ())


@lru_cache(maxsize=1024)
def thinned(spans: tuple[int, ...], gone: int) -> tuple[int, ...]:
    """What windows keep where a step takes `gone` tokens of an axis, in proportion to their lengths.

    Each loses at most half, so that its neighbours can be merged in pairs. Equally long windows lose
    equally many where the number allows it, the earlier ones one more where it does not.

    Raises:
        LuvcError: they hold fewer pairs.
    """
    pairs = sum(span // 2 for span in spans)
    if gone > pairs:
        raise LuvcError(
            f"schedule: matching would take {gone} of {sum(spans)} tokens, and its windows of "
            f"{', '.join(map(str, sorted(set(spans))))} tokens hold {pairs} pairs of neighbours: use a "
            "larger group"
        )
    lost = [0] * len(spans)
    for _ in range(gone):
        able = [i for i, span in enumerate(spans) if lost[i] < span // 2]
        # the next one is taken from the window that has lost the smallest part of itself with it
        lost[max(able, key=lambda i: (Fraction(spans[i], lost[i] + 1), -i))] += 1
    return tuple(span - less for span, less in zip(spans, lost, strict=True))


def merged_grids(
    grid: Grid, merges: tuple[Merge, ...], multiple: Grid, layers: int
) -> tuple[Grid, ...]:
    """The grid inside each vision layer, after the steps scheduled before it."""
    grids = []
    for layer in range(layers):
        for merge in merges:
            if merge.layer == layer:
                grid = merge_grid(grid, merge, multiple)
        grids.append(grid)
    return tuple(grids)


def smaller_grids(grid: Grid, within: Fraction) -> list[Grid]:
    """Grids of fewer tokens and nearly the same proportions, most tokens first, then the most alike.

    Args:
        grid: the full one.
        within: rows / columns may differ from the grid's by at most this factor, either way.
    """
    found = []
    for h in range(1, grid.h + 1):
        for w in range(1, grid.w + 1):
            uneven = Fraction(h * grid.w, w * grid.h)
            uneven = max(uneven, 1 / uneven)
            if h * w < grid.tokens and uneven <= within:
                found.append((-h * w, uneven, Grid(h, w)))
    return [smaller for *_, smaller in sorted(found, key=lambda f: f[:2])]


def merge_spans(spans: list[tuple[int, int]], group: int, length: int) -> list[tuple[int, int]]:
    """What each row (or column) covers of the first grid, after an OIM step leaves `length` of them.

    Args:
        spans: (first, last) covered by each before the step.
        group: g of the step.
        length: rows left.
    """
    merged, groups = [], len(spans) - length
    for start in range(0, groups * group, group):
        alone, (a, b) = spans[start : start + group - 2], spans[start + group - 2 : start + group]
        merged += [*alone, (a[0], b[1])]
    return [*merged, *spans[groups * group :]]
