"""VisionDrop: what visual tokens attend to, in stages; the rest is merged."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ..tokens.reference import take_rows
from .base import HEADS, TOWER, Heads, Measured, Score, Seen, Sizes, Tower, option_class
from .tower import merge_rest


@option_class
class VisionDrop(Score):
    """Before the language model VisionZip's choice, inside it attention that visual tokens pay to each other.

    Queries and keys are those of the layer ahead of the stage. Positions are kept, where VisionDrop counts
    them anew: caches could not go on otherwise.

    Attributes:
        merged: share of the tokens kept that are merged ones ((42 + 6, 30 + 5, 22 + 4, 16 + 3) in the paper).
    """

    name = "visiondrop"
    about = "attention among visual tokens; the rest is merged"
    source = "VisionDrop, arXiv 2506.22283"
    reads = frozenset({TOWER, HEADS})
    chained = True

    merged: Annotated[float, Field(gt=0, lt=1)] = 1 / 7

    def layers(self, depth: int) -> tuple[int, ...]:
        """VisionZip's: the one before the last."""
        return (max(0, depth - 2),)

    def measure(self, tower: Tower, keep: int) -> Measured:
        """VisionZip's choice and merged values."""
        return Measured(
            *merge_rest(tower.received(0), tower.keys(0), tower.tokens, keep, self.merged)
        )

    def __call__(self, seen: Seen, keep: int) -> Tensor:
        """Above 1 for what stays, [G, n]."""
        if seen.layer == 0:
            assert seen.measured is not None
            return seen.runs(seen.measured)
        scores, seen.found["values"] = self._chosen(seen, keep)
        return scores

    def values(self, seen: Seen, kept: Tensor) -> Tensor | None:
        """The merged values of the targets; before the language model the tower's already are."""
        if seen.layer == 0:
            return None
        return take_rows(seen.found["values"], kept)

    def _chosen(self, seen: Seen, keep: int) -> tuple[Tensor, Tensor]:
        heads = seen.heads(True)
        keys = seen.runs(seen.of_heads(heads.key).mean(1))
        return merge_rest(visual_attention(seen, heads), keys, seen.tokens(), keep, self.merged)

    def flops(self, sizes: Sizes) -> float:
        """The layer's queries and keys, visual queries on all keys, distances to the targets."""
        attention = 2.0 * sizes.tokens * sizes.sequence * sizes.heads * sizes.head_dim
        targets = self.merged * sizes.keep / sizes.groups
        joined = 2.0 * sizes.tokens * targets * (sizes.head_dim + sizes.hidden)
        return sizes.projections + attention + joined


def visual_attention(seen: Seen, heads: Heads) -> Tensor:
    """Attention that visual tokens pay to each other, mean over heads and queries, float32 [G, n].

    Softmax over all keys up to the query (causal).
    """
    query, key = seen.of_heads(heads.query), heads.key.float()
    place = torch.arange(key.shape[2], device=key.device)
    later = place > seen.visual_index[..., None]  # [B, V, S]
    products = query @ key.transpose(2, 3) * heads.scale
    weights = products.masked_fill(later[:, None], -torch.inf).softmax(-1).mean((1, 2))
    return seen.runs(weights.gather(1, seen.visual_index))
