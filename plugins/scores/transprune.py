"""TransPrune's token transition variation: how much a layer moved a token."""

from torch import Tensor

from .base import BEHIND, Score, Seen, Sizes, option_class, unit


@option_class
class TransPrune(Score):
    """Of attention and MLP: ||output|| / ||input|| times exp(1 - cosine of both), normalised over the tokens.

    Of the layer behind the stage alone, where TransPrune adds up several; the attention from the instruction
    that it adds is left out, since it reads the question. Positions are kept.
    """

    name = "transprune"
    about = "how much the layer behind the stage moved a token"
    source = "TransPrune (TTV), arXiv 2507.20630, code under MIT"
    reads = frozenset({BEHIND})

    def __call__(self, seen: Seen, keep: int) -> Tensor:
        """The sum of both terms, [G, n]."""
        attended, transformed = seen.behind()
        return self._term(seen, *attended) + self._term(seen, *transformed)

    @staticmethod
    def _term(seen: Seen, before: Tensor, after: Tensor) -> Tensor:
        x, y = seen.tokens(before), seen.tokens(after)
        turn = (1 - (unit(x) * unit(y)).sum(-1)).exp()
        return y.norm(dim=-1) / x.norm(dim=-1) * turn / turn.sum(1, keepdim=True)

    def flops(self, sizes: Sizes) -> float:
        """The layer once more, where the runtime does not share it, and a few passes over its tokens."""
        return sizes.layer + 16.0 * sizes.tokens * sizes.hidden
