"""FastV: the attention that the prompt's last token pays to each visual token."""

import torch
from torch import Tensor

from .base import HEADS, QUESTION, Score, Seen, Sizes, option_class


@option_class
class FastV(Score):
    """Head-mean attention from the prompt's last token, in the layer ahead.

    FastV prunes behind layer K by the attention of layer K; here the layer ahead of the stage is asked, so
    that its own input is pruned, too.
    """

    name = "fastv"
    about = "attention from the prompt's last token"
    source = "FastV, arXiv 2403.06764 (code without a licence: written from the paper's rule)"
    reads = frozenset({HEADS, QUESTION})

    def __call__(self, seen: Seen, keep: int) -> Tensor:
        """[G, n]."""
        heads = seen.heads(True)
        B, H, S, d = heads.query.shape
        index = seen.last[:, None, None, None].expand(B, H, 1, d)
        query = heads.query.gather(2, index).float()
        products = query @ heads.key.float().transpose(2, 3) * heads.scale
        later = torch.arange(S, device=query.device) > seen.last[:, None]
        weights = products.masked_fill(later[:, None, None], -torch.inf).softmax(-1).mean(1)[:, 0]
        return seen.runs(weights.gather(1, seen.visual_index))

    def flops(self, sizes: Sizes) -> float:
        """The layer's queries and keys, and one row of attention."""
        return sizes.projections + 2.0 * sizes.sequence * sizes.heads * sizes.head_dim
