"""OIM that gives the grid back, by hand on Hugging Face's own towers: token by token, between its layers.

Nothing of the exporter takes part. Hooks merge what enters a layer and hand the full grid to what comes
behind the last one. Letters: h rows and w columns of a grid, k side of a merger's block, D width.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from . import by_hand
from .by_hand import Merges, Rows

Groups = list[list[int]]  # tokens of a line that become one, in order


def fixed(line: list[torch.Tensor], group: int) -> Groups:
    """The last two of every `group` tokens."""
    ends = range(group - 1, len(line), group)
    return [[i] if i not in ends else [i - 1, i] for i in range(len(line)) if i + 1 not in ends]


def similar(line: list[torch.Tensor], gone: int) -> Groups:
    """The most similar neighbours: odd tokens join an even one."""
    unit = [token.double() / token.double().norm() for token in line]
    options = []
    for i in range(1, len(line), 2):
        sides = [j for j in (i - 1, i + 1) if j < len(line)]
        best = max(sides, key=lambda j: (float(unit[i] @ unit[j]), -j))
        options.append((float(unit[i] @ unit[best]), i, best))
    members = {i: [i] for i in range(len(line))}
    for _, odd, even in sorted(options, reverse=True)[:gone]:
        members[even] = sorted([*members[even], *members.pop(odd)])
    return [members[i] for i in sorted(members)]


@dataclass
class Step:
    """What a step did: rows before and after it, and where each token went."""

    before: Rows
    after: Rows
    went: list[list[tuple[int, int]]]


class Grid:
    """The tokens of one tile, the steps made on them, and their places.

    Args:
        size: (h, w).
        match: the most similar neighbours are merged.
        window: side of a window in tokens, or None.
    """

    def __init__(self, size: tuple[int, int], match: bool, window: int | None = None):
        h, w = size
        self.match, self.side = match, window
        self.places: Rows = [
            [torch.tensor([float(y), float(x)]) for x in range(w)] for y in range(h)
        ]
        self.steps: list[Step] = []

    def merge(self, rows: Rows, axis: str, group: int) -> Rows:
        """One step."""
        turn: Callable[[Rows], Rows] = (lambda r: r) if axis == "width" else transposed
        lines, places = turn(rows), turn(self.places)
        groups = [self.grouped(*both, axis, group) for both in zip(lines, places, strict=True)]
        after = [merged(line, g) for line, g in zip(lines, groups, strict=True)]
        self.places = turn([merged(p, g) for p, g in zip(places, groups, strict=True)])
        went = [[to for i in range(len(rows_)) for to, g in enumerate(found) if i in g]
                for rows_, found in zip(lines, groups, strict=True)]  # fmt: skip
        cells = turn([[(y, x) for x in line] for y, line in enumerate(went)])
        straight = cells if axis == "width" else [[(y, x) for x, y in line] for line in cells]
        self.steps.append(Step(rows, turn(after), straight))
        return turn(after)

    def grouped(self, line: list, places: list, axis: str, group: int) -> Groups:
        """The groups of one line; matched ones stay inside their window."""
        if not self.match:
            return fixed(line, group)
        gone = len(line) // group
        if self.side is None:
            return similar(line, gone)
        at = [int(place[int(axis == "width")] // self.side) for place in places]
        borders = [0, *(i for i in range(1, len(at)) if at[i] != at[i - 1]), len(at)]
        found: Groups = []
        for a, b in pairwise(borders):
            part = round((b - a) * gone / len(line) - 1e-9)
            found += [[a + i for i in g] for g in similar(line[a:b], part)]
        assert len(found) == len(line) - gone, "the windows' shares are another matter"
        return found

    def restored(self, rows: Rows) -> Rows:
        """The full grid: what was remembered and what was added since, the last step first."""
        for step in reversed(self.steps):
            rows = [
                [step.before[y][x] + rows[v][u] - step.after[v][u] for x, (v, u) in enumerate(line)]
                for y, line in enumerate(step.went)
            ]
        return rows


def transposed(rows: Rows) -> Rows:
    return [list(column) for column in zip(*rows, strict=True)]


def merged(line: list, groups: Groups) -> list:
    return [torch.stack([line[i] for i in g]).mean(0) for g in groups]


class AbsoluteTower:
    """Hooks on a tower in raster order, of states [N, prefix + h * w, D].

    Args:
        layers: of the tower.
        merges: OIM steps.
        match: of the most similar neighbours.
        size: (h, w).
        prefix: tokens before the grid.
        last: layer behind which the grid is full again.
        rotary: what turns places [n, 2] into cos and sin, where the layers take them.
    """

    def __init__(
        self,
        layers: Any,
        merges: Merges,
        match: bool,
        size: tuple[int, int],
        prefix: int,
        last: int,
        rotary: Any = None,
    ):
        self.layers, self.merges = layers, merges
        self.rotary = rotary
        self.match, self.size = match, size
        self.prefix, self.last = prefix, last
        self.tiles: list[Grid] = []

    def hook(self, stack: ExitStack) -> None:
        """Attach; the stack removes."""
        for i, layer in enumerate(self.layers):
            hook = lambda m, a, kw, at=i: self.pre(at, a, kw)  # noqa: E731
            stack.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
        # before the hook with which Hugging Face records inner layers
        post = lambda m, a, out: self.post(out)  # noqa: E731
        stack.callback(self.layers[self.last].register_forward_hook(post, prepend=True).remove)

    def pre(self, at: int, args: tuple, kwargs: dict):
        """Merge what enters a layer."""
        x, *rest = args
        self.tiles = self.tiles or [Grid(self.size, self.match) for _ in x]
        for _, axis, group in (m for m in self.merges if m[0] == at):
            x = self.each(x, lambda tile, rows, a=axis, g=group: tile.merge(rows, a, g))
        if self.merges[0][0] <= at <= self.last:  # a mask is of another length, nothing is masked
            kwargs = {k: None if "mask" in k else v for k, v in kwargs.items()}
            rest = [None] * len(rest)
        if self.rotary:
            (tile,) = self.tiles
            turned = self.rotary(x, by_hand.flat(tile.places))
            kwargs = kwargs | {"position_embeddings": turned}
        return (x, *rest), kwargs

    def post(self, out: Any) -> Any:
        """Give the grid back."""
        x = self.each(out[0] if isinstance(out, tuple) else out, Grid.restored)
        return (x, *out[1:]) if isinstance(out, tuple) else x

    def each(self, x: torch.Tensor, change: Callable[[Grid, Rows], Rows]) -> torch.Tensor:
        """Every tile's rows changed, the prefix left."""
        found = []
        for tile, y in zip(self.tiles, x, strict=True):
            rows = by_hand.grid(y[self.prefix :], len(tile.places[0]))
            found.append(torch.cat([y[: self.prefix], by_hand.flat(change(tile, rows))]))
        return torch.stack(found)


class RotaryTower:
    """Hooks on a rotary tower (Qwen-VL, GLM-V); DeepStack's mergers get the full grid too.

    Args:
        visual: Hugging Face's tower.
        merges: OIM steps.
        match: of the most similar neighbours.
        size: (h, w).
        window: side of a window in patches, or None.
    """

    def __init__(
        self, visual: Any, merges: Merges, match: bool, size: tuple[int, int], window: int | None
    ):
        self.visual, self.merges = visual, merges
        self.window = window
        self.k = visual.spatial_merge_size
        self.width = size[1]
        self.grid = Grid(size, match, window)
        self.order: torch.Tensor | None = None

    def hook(self, stack: ExitStack) -> None:
        """Attach; the stack removes."""
        for i, block in enumerate(self.visual.blocks):
            pre = lambda m, a, kw, at=i: self.pre(at, a[0], kw)  # noqa: E731
            post = lambda m, a, out, at=i: self.post(at, out)  # noqa: E731
            stack.callback(block.register_forward_pre_hook(pre, with_kwargs=True).remove)
            stack.callback(block.register_forward_hook(post).remove)
        for merger in getattr(self.visual, "deepstack_merger_list", ()):
            full = lambda m, args: (self.full(args[0]), *args[1:])  # noqa: E731
            stack.callback(merger.register_forward_pre_hook(full).remove)

    def pre(self, at: int, x: torch.Tensor, kwargs: dict):
        """Merge, in raster order from the first layer on, and say where the tokens stand."""
        rows = by_hand.unblocked(x, self.width, self.k) if at == 0 else None
        rows = rows or by_hand.grid(x, len(self.grid.places[0]))
        for _, axis, group in (m for m in self.merges if m[0] == at):
            rows = self.grid.merge(rows, axis, group)
        x, places = by_hand.flat(rows), by_hand.flat(self.grid.places)
        windowed = self.window and at not in self.visual.fullatt_block_indexes
        window = self.window if windowed else None
        x, self.order, new = by_hand.placed(self.visual, x, places, window)
        return (x,), kwargs | new

    def post(self, at: int, x: torch.Tensor) -> torch.Tensor:
        """Raster order; behind the last layer the full grid, block by block."""
        if self.order is not None:
            x = x[self.order.argsort()]
        return self.full(x) if at == len(self.visual.blocks) - 1 else x

    def full(self, x: torch.Tensor) -> torch.Tensor:
        """The full grid of merged tokens, block by block."""
        rows = self.grid.restored(by_hand.grid(x, len(self.grid.places[0])))
        return torch.stack(by_hand.blocks(rows, self.k))
