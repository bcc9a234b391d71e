"""OIM by hand on Hugging Face's own towers: hooks merge, token by token, between its layers.

Nothing of the exporter takes part. Letters: h rows and w columns of a grid, k side of a merger's block,
D width.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch

Merges = Sequence[tuple[int, str, int]]  # (before layer, axis, group)
Rows = list[list[Any]]  # [h][w] of anything that can be averaged


def shorten(
    line: list, group: int, multiple: int, mean: Callable = lambda a, b: (a + b) / 2
) -> list:
    """Of every `group` neighbours the last two become one; what is over stays at the end."""
    n = len(line)
    left = min(n, math.ceil((n - n // group) / multiple) * multiple)
    out: list = []
    for start in range(0, (n - left) * group, group):
        *alone, a, b = line[start : start + group]
        out += [*alone, mean(a, b)]
    return out + line[(n - left) * group :]


def merge(rows: Rows, axis: str, group: int, multiple: int, **how: Any) -> Rows:
    """One OIM step on a grid."""
    if axis == "width":
        return [shorten(row, group, multiple, **how) for row in rows]
    columns = [shorten(list(c), group, multiple, **how) for c in zip(*rows, strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


def grid(x: torch.Tensor, w: int) -> Rows:
    """[h * w, ...] in raster order -> rows."""
    return [list(row) for row in x.unflatten(0, (-1, w))]


def flat(rows: Rows) -> torch.Tensor:
    """Rows -> [h * w, ...]."""
    return torch.stack([cell for row in rows for cell in row])


def blocks(rows: Rows, k: int) -> list[Any]:
    """Cells block by block, as the processors of rotary towers order patches."""
    h, w = len(rows), len(rows[0])
    return [
        rows[y + i][x + j]
        for y in range(0, h, k)
        for x in range(0, w, k)
        for i in range(k)
        for j in range(k)
    ]


def unblocked(x: torch.Tensor, w: int, k: int) -> Rows:
    """[P, D] block by block -> rows."""
    places = blocks([[(y, x) for x in range(w)] for y in range(len(x) // w)], k)
    found = dict(zip(places, x, strict=True))
    return [[found[y, x] for x in range(w)] for y in range(len(x) // w)]


def hook_absolute(
    stack: ExitStack,
    layers: Any,
    merges: Merges,
    w: int,
    prefix: int,
    multiple: int,
    rotary: Any = None,
) -> None:
    """Have a tower in raster order merge its hidden states [N, prefix + h * w, D].

    Where it has rotary positions, `rotary` is what turns their means [n, 2] into cos and sin.
    """
    width = [w]
    places: list[Rows] = []

    def pre(module: Any, args: tuple, kwargs: dict, at: int):
        x, *rest = args
        if rotary and not at:
            ys, xs = range(x.shape[1] // w), range(w)
            places[:] = [[[torch.tensor([float(y), float(x)]) for x in xs] for y in ys]]
        for _, axis, group in (m for m in merges if m[0] == at):
            merged = []
            for tile in x:
                rows = merge(grid(tile[prefix:], width[0]), axis, group, multiple)
                merged.append(torch.cat([tile[:prefix], flat(rows)]))
            width[0], x = len(rows[0]), torch.stack(merged)
            places[:] = [merge(p, axis, group, multiple) for p in places]
        if at >= merges[0][0]:  # a mask would be of the old length, and nothing is masked
            rest, kwargs = (
                [None] * len(rest),
                {k: None if "mask" in k else v for k, v in kwargs.items()},
            )
        if rotary:
            kwargs = kwargs | {"position_embeddings": rotary(x, flat(places[0]))}
        return (x, *rest), kwargs

    for i, layer in enumerate(layers):
        hook = lambda m, a, kw, at=i: pre(m, a, kw, at)  # noqa: E731
        stack.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)


def placed(
    visual: Any, x: torch.Tensor, places: torch.Tensor, window: int | None
) -> tuple[torch.Tensor, torch.Tensor | None, dict[str, Any]]:
    """Tokens as a layer takes them, their order where it has windows, and what says where they stand.

    Args:
        visual: the tower.
        x: [n, D].
        places: [n, 2].
        window: side of the layer's windows in patches, or None.
    """
    lengths, order = [len(x)], None
    if window:
        members: dict[tuple, list[int]] = {}
        for n, place in enumerate(places):
            members.setdefault(tuple((place // window).tolist()), []).append(n)
        order = torch.tensor([n for inside in members.values() for n in inside])
        x, places = x[order], places[order]
        lengths = [len(inside) for inside in members.values()]
    ends = torch.tensor([0, *lengths]).cumsum(0).int()
    turned = visual.rotary_pos_emb(x, places)
    new = {"cu_seqlens": ends, "max_seqlen": max(lengths), "position_embeddings": turned}
    return x, order, new


class RotaryTower:
    """Hooks on a rotary tower (Qwen-VL, GLM-V): merged tokens, their mean positions, their windows.

    Args:
        visual: Hugging Face's tower.
        merges: OIM steps.
        size: (h, w).
        window: side of a window in patches, or None.
        taps: layers whose output is kept and merged on.
        side: of the blocks that tokens come in; None for a merger's.
    """

    def __init__(
        self,
        visual: Any,
        merges: Merges,
        size: tuple[int, int],
        window: int | None = None,
        taps=(),
        side: int | None = None,
    ):
        self.visual = visual
        self.merges = merges
        self.window = window
        self.k = visual.spatial_merge_size
        self.side = side or self.k
        self.places: Rows = [
            [torch.tensor([float(y), float(x)]) for x in range(size[1])] for y in range(size[0])
        ]
        self.taps, self.tapped = taps, {}
        self.order: torch.Tensor | None = None

    def hook(self, stack: ExitStack) -> None:
        """Attach; the stack removes."""
        for i, block in enumerate(self.visual.blocks):
            pre = lambda m, a, kw, at=i: self.pre(at, a[0], kw)  # noqa: E731
            post = lambda m, a, out, at=i: self.post(at, out)  # noqa: E731
            stack.callback(block.register_forward_pre_hook(pre, with_kwargs=True).remove)
            stack.callback(block.register_forward_hook(post).remove)

    def merged(self, x: torch.Tensor, axis: str, group: int) -> torch.Tensor:
        rows = merge(unblocked(x, len(self.places[0]), self.side), axis, group, self.k)
        return torch.stack(blocks(rows, self.side))

    def pre(self, at: int, x: torch.Tensor, kwargs: dict):
        for _, axis, group in (m for m in self.merges if m[0] == at):
            x = self.merged(x, axis, group)
            self.tapped = {i: self.merged(t, axis, group) for i, t in self.tapped.items()}
            self.places = merge(self.places, axis, group, self.k)
        places = torch.stack(blocks(self.places, self.side))
        windowed = self.window and at not in self.visual.fullatt_block_indexes
        x, self.order, new = placed(self.visual, x, places, self.window if windowed else None)
        return (x,), kwargs | new

    def post(self, at: int, x: torch.Tensor) -> torch.Tensor:
        if self.order is not None:
            x = x[self.order.argsort()]
        if at in self.taps:
            self.tapped[at] = x
        return x
