"""ViTCoP's K-norm: tokens whose keys are short draw attention whatever is asked."""

from torch import Tensor

from .base import HEADS, Score, Seen, Sizes, option_class


@option_class
class KNorm(Score):
    """The tokens of smallest L2 norm of the head-mean key stay.

    ViTCoP takes the keys of the layer behind the stage; here those of the layer ahead, whose input is
    pruned. The norm of one head is the same before and after the rotary embedding, that of their mean too:
    all heads turn alike.
    """

    name = "k-norm"
    about = "how short a token's head-mean key is"
    source = "ViTCoP, arXiv 2601.17818, written from the paper's rule"
    reads = frozenset({HEADS})

    def __call__(self, seen: Seen, keep: int) -> Tensor:
        """[G, n], minus the norm."""
        key = seen.of_heads(seen.heads(False).key).mean(1)
        return -seen.runs(key.norm(dim=-1))

    def flops(self, sizes: Sizes) -> float:
        """The layer's queries and keys, and the norms."""
        return sizes.projections + 2.0 * sizes.tokens * sizes.heads * sizes.head_dim
