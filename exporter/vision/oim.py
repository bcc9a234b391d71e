"""OIM, the Orthogonal Iterative Merger: neighbouring tokens of the vision grid are averaged.

One step shortens one axis and keeps the grid rectangular, so position tables, windows and projectors
that need a rectangle still work. A step can be undone: what the layers added to a merged token is handed
to every token that went into it. Fixed groups are lowered to reshape, slice, mean and concat, matched
neighbours to TopK and gather. Source: LUVC, arXiv 2512.09010, as read in the design; rows and columns of
the most similar neighbours as in CubistMerge, arXiv 2509.21764. Letters: N tiles, h rows, w columns,
D width, R rows (or columns) of all tiles, n tokens of one, m of them after a step.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate, groupby

import torch

from ...engines.bundle.joins import ALONE
from ...engines.bundle.schedule import Merge
from ..planning.grid import Grid, thinned


def merge_axis(x: torch.Tensor, dim: int, group: int, length: int) -> torch.Tensor:
    """Shorten `dim` to `length`: in the first groups the last two of `group` tokens are averaged.

    Args:
        x: [..., n, ...].
        dim: the axis, counted from the front.
        group: g >= 2; g tokens become g - 1.
        length: tokens to leave, at least n - n // g; surplus tokens at the end stay unmerged.

    Returns:
        [..., length, ...].
    """
    n = x.shape[dim]
    groups = n - length
    if groups == 0:
        return x
    head = x.narrow(dim, 0, groups * group).unflatten(dim, (groups, group))
    mean = head.narrow(dim + 1, group - 2, 2).mean(dim + 1, keepdim=True)
    if group > 2:
        mean = torch.cat([head.narrow(dim + 1, 0, group - 2), mean], dim + 1)
    merged = mean.flatten(dim, dim + 1)
    rest = n - groups * group
    return torch.cat([merged, x.narrow(dim, groups * group, rest)], dim) if rest else merged


def spread_axis(x: torch.Tensor, dim: int, group: int, n: int) -> torch.Tensor:
    """Lengthen `dim` to `n` as `merge_axis` shortened it: a merged token stands twice.

    Args:
        x: [..., length, ...].
        dim: the axis, counted from the front.
        group: g of the step.
        n: tokens before the step.

    Returns:
        [..., n, ...].
    """
    length = x.shape[dim]
    groups = n - length
    if groups == 0:
        return x
    head = x.narrow(dim, 0, groups * (group - 1)).unflatten(dim, (groups, group - 1))
    twice = torch.cat([head, head.narrow(dim + 1, group - 2, 1)], dim + 1).flatten(dim, dim + 1)
    rest = length - groups * (group - 1)
    return torch.cat([twice, x.narrow(dim, groups * (group - 1), rest)], dim) if rest else twice


def similarity(x: torch.Tensor, spans: Sequence[int]) -> torch.Tensor:
    """Cosine of each token and the one before it, in float32; ALONE where a span begins.

    Args:
        x: [R, n, D] rows.
        spans: lengths of the parts of a row whose tokens are compared; they sum to n.

    Returns:
        float32 [R, n].
    """
    unit = torch.nn.functional.normalize(x.float(), dim=-1)
    found = (unit[:, :-1] * unit[:, 1:]).sum(-1)
    alone = torch.full_like(x[:, :1, 0], ALONE, dtype=torch.float32)
    begins = accumulate(spans, initial=0)
    parts = [
        (alone, found[:, first : first + n - 1]) for first, n in zip(begins, spans, strict=False)
    ]
    return torch.cat([part for pair in parts for part in pair], 1)


def similar_links(likeness: torch.Tensor, gone: int) -> torch.Tensor:
    """Which tokens of each row join the one before them: the most similar neighbours.

    Odd tokens may join the even neighbour on either side (the left one where both are equally similar); the
    `gone` most similar ones do. Every row loses the same number, so rows stay equally long.

    Args:
        likeness: float32 [R, n], of each token and the one before it.
        gone: tokens that each row loses, at most n // 2.

    Returns:
        float32 [R, n], 1 where a token is one with the token before it, else 0.
    """
    n = likeness.shape[1]
    odds, evens = n // 2, n - n // 2
    if gone == 0:
        return torch.zeros_like(likeness)
    left, right = likeness[:, 1::2], likeness[:, 2::2]
    if evens == odds:  # the last odd token has no even neighbour on its right
        right = torch.cat([right, torch.full_like(left[:, :1], ALONE)], 1)
    leaves = torch.topk(torch.maximum(left, right), gone, dim=1).indices
    joins = torch.zeros_like(left).scatter(1, leaves, 1.0)
    to_right = (right > left).float()
    # an odd token that joins the even one behind it makes that one's link, not its own
    behind, own = joins * to_right, joins * (1 - to_right)
    on_even = torch.cat([torch.zeros_like(own[:, :1]), behind[:, : evens - 1]], 1)
    on_odd = own if evens == odds else torch.cat([own, torch.zeros_like(own[:, :1])], 1)
    return torch.stack([on_even, on_odd], -1).flatten(1)[:, :n]


class Step(ABC):
    """One OIM step: what it makes of a grid's tokens, and back.

    Args:
        before: grid of the tokens.
        after: grid to reach; differs from `before` along `merge.axis` only.
        merge: axis and group.
    """

    def __init__(self, before: Grid, after: Grid, merge: Merge):
        self.before, self.after = before, after
        self.group = merge.group
        self.wide = merge.axis == "width"
        self.n, self.m = before.length(merge.axis), after.length(merge.axis)

    @abstractmethod
    def merge(self, x: torch.Tensor) -> torch.Tensor:
        """[N, h * w, D] in raster order -> [N, h' * w', D]."""

    @abstractmethod
    def spread(self, x: torch.Tensor) -> torch.Tensor:
        """[N, h' * w', D] -> [N, h * w, D]: every token gets the row of the merged one it went into."""


class FixedStep(Step):
    """The same groups in every picture."""

    @property
    def _dim(self) -> int:
        return 2 if self.wide else 1

    def merge(self, x: torch.Tensor) -> torch.Tensor:
        """The last two of each group are averaged."""
        grid = x.unflatten(1, (self.before.h, self.before.w))
        return merge_axis(grid, self._dim, self.group, self.m).flatten(1, 2)

    def spread(self, x: torch.Tensor) -> torch.Tensor:
        """The last token of each group stands twice."""
        grid = x.unflatten(1, (self.after.h, self.after.w))
        return spread_axis(grid, self._dim, self.group, self.n).flatten(1, 2)


class MatchedStep(Step):
    """The most similar neighbours of each row (or column), as many in each.

    Args:
        before, after, merge: as of every step.
        x: [N, h * w, D] hidden states that are matched by.
        spans: lengths of the parts of a row that neighbours must share (windows); they sum to n.

    Attributes:
        likeness: float32 [R, n] of each token and the one before it.
        best: what is joined by it, float32 [R, n].
        link: what is joined: the best, or what it was told to `take`.
    """

    def __init__(
        self, before: Grid, after: Grid, merge: Merge, x: torch.Tensor, spans: Sequence[int]
    ):
        super().__init__(before, after, merge)
        spans = tuple(spans)
        self.entries = x.shape[0]
        self.likeness = similarity(self._lines(x, before), spans)
        self.best = self._links(self.likeness, spans, thinned(spans, self.n - self.m))
        self.take(self.best)

    def take(self, link: torch.Tensor) -> None:
        """Join these tokens.

        Args:
            link: float32 [R, n], 1 where a token is one with the token before it; as many in each row.
        """
        self.link = link
        slots = torch.cumsum(1 - link, 1) - 1
        self.slots = slots.long()  # [R, n], of the merged token that each went into
        # sort key: tokens that open a merged one come first, in their order
        key = torch.arange(self.n, device=link.device) + self.n * link
        self.first = torch.topk(key, self.m, dim=1, largest=False, sorted=True).indices  # [R, m]

    def told(self, lines: torch.Tensor) -> torch.Tensor:
        """What is known of each line's tokens, [R, n], by tiles: [N, lines, n]."""
        return lines.unflatten(0, (-1, self.before.h if self.wide else self.before.w))

    @staticmethod
    def _links(rows: torch.Tensor, spans: tuple[int, ...], left: tuple[int, ...]) -> torch.Tensor:
        """`similar_links` inside each span; equal ones that stand together at once."""
        found, start = [], 0
        for (span, keeps), alike in groupby(zip(spans, left, strict=True)):
            count = len(list(alike))
            part = rows.narrow(1, start, count * span).unflatten(1, (count, span)).flatten(0, 1)
            found.append(similar_links(part, span - keeps).unflatten(0, (-1, count)).flatten(1))
            start += count * span
        return torch.cat(found, 1) if len(found) > 1 else found[0]

    def merge(self, x: torch.Tensor) -> torch.Tensor:
        """Means of what is linked, two or three tokens; sums in float32."""
        rows = self._lines(x, self.before)
        values = rows.float()
        total, count = self._with_next(values, self.link), self._with_next(None, self.link)
        index = self.first[..., None]
        total = torch.gather(total, 1, index.expand(-1, -1, total.shape[2]))
        mean = total / torch.gather(count[..., None], 1, index)
        return self._tokens(mean.to(x.dtype), self.after)

    @staticmethod
    def _with_next(x: torch.Tensor | None, link: torch.Tensor) -> torch.Tensor:
        """Each token and the linked ones behind it, summed [R, n, D]; None: how many they are [R, n]."""
        after = torch.cat([link[:, 1:], torch.zeros_like(link[:, :1])], 1)
        second = after * torch.cat([link[:, 2:], torch.zeros_like(link[:, :2])], 1)
        if x is None:
            return 1 + after + second
        one = torch.cat([x[:, 1:], x[:, :1]], 1)
        two = torch.cat([x[:, 2:], x[:, :2]], 1)
        return x + after[..., None] * one + second[..., None] * two

    def spread(self, x: torch.Tensor) -> torch.Tensor:
        """Every token takes its slot's row."""
        rows = self._lines(x, self.after)
        index = self.slots[..., None].expand(-1, -1, rows.shape[2])
        return self._tokens(torch.gather(rows, 1, index), self.before)

    def _lines(self, x: torch.Tensor, grid: Grid) -> torch.Tensor:
        """[N, h * w, D] -> rows [N * h, w, D], or columns [N * w, h, D]."""
        x = x.unflatten(1, (grid.h, grid.w))
        return (x if self.wide else x.transpose(1, 2)).flatten(0, 1)

    def _tokens(self, rows: torch.Tensor, grid: Grid) -> torch.Tensor:
        """The inverse of `_lines`."""
        x = rows.unflatten(0, (-1, grid.h if self.wide else grid.w))
        return (x if self.wide else x.transpose(1, 2)).flatten(1, 2)


def restored(
    x: torch.Tensor, done: Sequence[tuple[Step, torch.Tensor, torch.Tensor]]
) -> torch.Tensor:
    """The full grid at the tower's exit: remembered states and what the layers added since.

    Args:
        x: [N, h' * w', D], raster order.
        done: of each step made, the first first: itself, the tokens before it and those after it.

    Returns:
        [N, h * w, D] of the grid before the first step.
    """
    for step, before, after in reversed(done):
        x = before + step.spread(x - after)
    return x
