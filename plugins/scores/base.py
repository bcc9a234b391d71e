"""The seam for methods: what a score may read before a language layer, and what it gives back.

A score is a frozen dataclass, one file in this folder and its place in registry.py. Its fields are its
options, checked as they are given. It is traced into the graphs, so it is plain torch on fixed shapes.
Letters: ../contract.py; besides n = V / groups tokens of a run that is scored apart, G = B * groups runs,
N entries of the vision graph (tiles or images), h * w patches of an entry.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar, dataclass_transform

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor
from torch.nn import functional as F

from ..tokens.reference import take_rows

S = TypeVar("S", bound=type)

HEADS = "queries and keys"
"""Of `Score.reads`: queries and keys of the layer ahead."""
QUESTION = "the question"
"""Of `Score.reads`: what stands behind the picture, so that a pruned picture is another for each question."""


BEHIND = "the layer behind it"
"""Of `Score.reads`: what attention and MLP of the layer behind the stage were given and gave."""
TOWER = "the tower's attention"
"""Of `Score.reads`: what the vision tower looks at; in the tower of a model without merging."""


@dataclass(frozen=True)
class Heads:
    """What a layer's attention is about to multiply.

    Attributes:
        query: [B, H_q, S, d].
        key: [B, H_q, S, d], the key heads repeated for the query heads that share them.
        scale: factor on their products.
    """

    query: Tensor
    key: Tensor
    scale: float

    def weights(self, rows: slice = slice(None)) -> Tensor:
        """Attention of some queries where all see all, mean over heads, float32 [B, rows, S]."""
        products = self.query[:, :, rows].float() @ self.key.float().transpose(2, 3)
        return (products * self.scale).softmax(-1).mean(1)


@dataclass(frozen=True)
class Tower:
    """What a score may measure in the vision tower.

    Attributes:
        heads: queries and keys [N, H, prefix + h * w, d] of the layers that `Score.layers` names, in
            raster order.
        prefix: tokens before the grid (CLS).
        tokens: visual tokens as the language model gets them, [N, n, D].
        grid: rows and columns of them.
        cells: mean over the patches of each visual token, [N, h * w, c] -> [N, n, c].
    """

    heads: tuple[Heads, ...]
    prefix: int
    tokens: Tensor
    grid: tuple[int, int]
    cells: Callable[[Tensor], Tensor]

    def of_cls(self, layer: int) -> Tensor:
        """Attention from the CLS token to each visual token, float32 [N, n]; all tokens' without one."""
        if not self.prefix:
            return self.received(layer)
        return self._cells(self.heads[layer].weights(slice(0, 1))[:, 0])

    def received(self, layer: int) -> Tensor:
        """Attention from all tokens to each visual token, mean over them, float32 [N, n]."""
        return self._cells(self.heads[layer].weights().mean(1))

    def keys(self, layer: int) -> Tensor:
        """Head-mean keys of each visual token, float32 [N, n, d]."""
        return self.cells(self.heads[layer].key.float().mean(1)[:, self.prefix :])

    def _cells(self, x: Tensor) -> Tensor:
        """[N, prefix + h * w] -> [N, n]."""
        return self.cells(x[:, self.prefix :, None])[..., 0]


@dataclass(frozen=True)
class Measured:
    """What rides behind the visual tokens into the language model.

    Attributes:
        scores: float32 [N, n].
        tokens: [N, n, D] in place of the visual tokens, where the first stage is before the first layer;
            None leaves them as they are.
    """

    scores: Tensor
    tokens: Tensor | None = None


def _absent(*_: object) -> Any:
    raise RuntimeError("a score asks for something that was not given")


@dataclass(frozen=True)
class Seen:
    """The sequence before a language layer, as a score sees it.

    Attributes:
        hidden: [B, S, D].
        normed: the layer's normalised input, [B, S, D], when it is called.
        visual_index: places of the visual tokens in the sequence, [B, V], ascending.
        last: place of the prompt's last token, [B].
        groups: equal runs of V that are scored apart.
        heads: queries and keys of the layer, with the rotary embedding or without, when it is called.
        turned: cosines and sines of the rotary embedding, [B, S, d] each, when it is called.
        behind: input and output of the attention, then of the MLP, of the layer behind the stage, [B, S, D]
            each, when it is called.
        layer: its index.
        measured: what `Score.measure` found in the tower, float32 [B, V]; None where it measures nothing.
        tables: what `Score.tables` made.
        found: what a score finds beside its scores and takes up again in `Score.values`: traced once.
    """

    hidden: Tensor
    normed: Callable[[], Tensor]
    visual_index: Tensor
    last: Tensor
    groups: int
    heads: Callable[[bool], Heads] = _absent
    turned: Callable[[], tuple[Tensor, Tensor]] = _absent
    behind: Callable[[], tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]] = _absent
    layer: int = 0
    measured: Tensor | None = None
    tables: Mapping[str, Tensor] = field(default_factory=dict)
    found: dict[str, Tensor] = field(default_factory=dict)

    def runs(self, x: Tensor) -> Tensor:
        """One entry for each visual token, [B, V, ...] -> [G, n, ...]."""
        return x.unflatten(1, (self.groups, -1)).flatten(0, 1) if self.groups > 1 else x

    def tokens(self, x: Tensor | None = None) -> Tensor:
        """Rows of the visual tokens of x [B, S, c] (the hidden states), float32 [G, n, c]."""
        return self.runs(take_rows(self.hidden if x is None else x, self.visual_index).float())

    def of_heads(self, x: Tensor) -> Tensor:
        """Rows of the visual tokens of x [B, H, S, d], float32 [B, H, V, d]."""
        index = self.visual_index[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])
        return x.gather(2, index).float()


@dataclass(frozen=True)
class Sizes:
    """What a score costs is worked out from these.

    Attributes:
        tokens: V, visual tokens that enter the stage.
        sequence: S, with the text.
        groups: runs that are scored apart.
        keep: visual tokens that stay.
        hidden: D.
        heads: H_q.
        kv_heads: H_kv.
        head_dim: d.
        layer: FLOPs of the layer behind the stage.
    """

    tokens: int
    sequence: int
    groups: int
    keep: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    layer: float = 0.0

    @property
    def projections(self) -> float:
        """FLOPs of the layer's queries and keys, once more."""
        return 2.0 * self.sequence * self.hidden * (self.heads + self.kv_heads) * self.head_dim


@dataclass_transform(frozen_default=True)
def option_class(score: S) -> S:
    """Make the fields of a score its options, checked by their types when it is made."""
    made: Any = checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))(score)
    return made


class Score(ABC):
    """How much each visual token is worth before a layer; those with the highest stay.

    Attributes:
        name: what people type, and what a schedule records.
        about: one line for people: what is kept.
        source: where the rule is from, with the licence of its authors' code.
        reads: of HEADS, QUESTION, BEHIND, TOWER.
        chained: one choice hangs on another (neighbours of the best, what merges, one token after the
            other), so that a near tie changes more than the last token kept.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    source: ClassVar[str]
    reads: ClassVar[frozenset[str]] = frozenset()
    chained: ClassVar[bool] = False

    def tables(self, length: int, keep: int) -> dict[str, Tensor]:
        """Constants of a stage: of runs of `length` tokens, `keep` of which stay."""
        del length, keep
        return {}

    def layers(self, depth: int) -> tuple[int, ...]:
        """Layers of a tower of `depth` whose queries and keys `measure` looks at."""
        del depth
        return ()

    def measure(self, tower: Tower, keep: int) -> Measured:
        """Score the visual tokens of each entry of the vision graph, `keep` of which stay at the first stage.

        Called where `reads` has TOWER.
        """
        raise NotImplementedError

    @property
    def described(self) -> str:
        """What the stage keeps tokens by, for people."""
        return self.about

    @abstractmethod
    def __call__(self, seen: Seen, keep: int) -> Tensor:
        """Score the visual tokens.

        Args:
            seen: the sequence.
            keep: tokens of each run that stay.

        Returns:
            float32 [G, n], or [B, C, V] that is summed over C; ties go to the lower position.
        """

    def values(self, seen: Seen, kept: Tensor) -> Tensor | None:
        """New values [G, keep, D] of the tokens kept [G, keep]; None leaves them as they are."""
        del seen, kept
        return None

    def flops(self, sizes: Sizes) -> float:
        """FLOPs of one stage, a multiply-add being 2."""
        return 2.0 * sizes.tokens * sizes.hidden


def top(scores: Tensor, keep: int) -> Tensor:
    """Ordinals [G, keep] of the highest scores [G, n], ascending; ties go to the lower position.

    By ranks: TensorRT's TopK ends at 3840 entries and leaves the order of ties open.
    """
    return ordered(ranks(scores) < keep, keep)


def ranks(scores: Tensor) -> Tensor:
    """The number of tokens before each one, int64 [G, n]: higher, or equal and at a lower position."""
    own, rival = scores[:, :, None], scores[:, None, :]
    place = torch.arange(scores.shape[1], device=scores.device)
    tie = (rival == own) & (place[None, :] < place[:, None])
    return ((rival > own) | tie).sum(2)


def ordered(mask: Tensor, count: int) -> Tensor:
    """Ordinals [G, count] of the True entries of mask [G, n], ascending; there are `count` in each row.

    A stable partition by cumulative sums: TensorRT's TopK ends at 3840 entries.
    """
    seen = mask.long().cumsum(1)
    place = torch.arange(mask.shape[1], device=mask.device).expand_as(seen)
    slot = torch.where(mask, seen - 1, count + place - seen)
    return torch.zeros_like(seen).scatter(1, slot, place)[:, :count]


def unit(x: Tensor) -> Tensor:
    """Rows of length 1 along the last axis, float32."""
    return F.normalize(x.float(), dim=-1)
