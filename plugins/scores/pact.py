"""PACT's pruning score: how much the mean visual query attends to a token, times the token's norm."""

from torch import Tensor

from .base import HEADS, Score, Seen, Sizes, option_class


@option_class
class Pact(Score):
    """Softmax over the visual keys of the mean visual query, mean over heads, times the hidden state's norm.

    Queries and keys before the rotary embedding, in float32. PACT's clustering, whose count depends on the
    picture, is left out: shapes are fixed here.
    """

    name = "pact"
    about = "attention from the mean visual query, times the token's norm"
    source = "PACT (EUTI), arXiv 2504.08966, code under MIT"
    reads = frozenset({HEADS})

    def __call__(self, seen: Seen, keep: int) -> Tensor:
        """[G, n]."""
        heads = seen.heads(False)
        query = self._runs(seen, heads.query).mean(2, keepdim=True)
        key = self._runs(seen, heads.key)
        weights = (query @ key.transpose(2, 3) * heads.scale).softmax(-1).mean(1)[:, 0]
        return weights * seen.tokens().norm(dim=-1)

    @staticmethod
    def _runs(seen: Seen, x: Tensor) -> Tensor:
        """[B, H, S, d] -> [G, H, n, d]."""
        return seen.runs(seen.of_heads(x).transpose(1, 2)).transpose(1, 2)

    def flops(self, sizes: Sizes) -> float:
        """The layer's queries and keys, one row of attention, the norms."""
        row = 2.0 * sizes.tokens * sizes.heads * sizes.head_dim
        return sizes.projections + row + 2.0 * sizes.tokens * sizes.hidden
