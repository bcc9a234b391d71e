"""IVC-Prune's constant half: places whose rotary positions models use as coordinates stay."""

from functools import cached_property
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from .base import Measured, Score, Seen, Sizes, Tower, option_class, ranks


def _other(name: str) -> str:
    from .registry import SCORES  # which lists this score, too

    others = [other for other in SCORES if other != IVC.name]
    if name not in others:
        raise ValueError(f"there is no score of that name beside this one: {', '.join(others)}")
    return name


@option_class
class IVC(Score):
    """The tokens of highest mean rotary cosine and of highest mean rotary sine stay, the rest by a score.

    Attributes:
        share: of the tokens, for the cosine and for the sine; at most half of those kept for each.
        rest: score of the other tokens, by its name, at its defaults.
    """

    name = "ivc"
    about = "a token's place first, where rotary positions are near a turn, then another score"
    source = "IVC-Prune, arXiv 2602.03060, the half that is known before the picture"

    share: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    rest: Annotated[str, AfterValidator(_other)] = "spectrum"

    @cached_property
    def other(self) -> Score:
        """The score of the rest."""
        from .registry import make

        return make(self.rest, {})

    @property
    def reads(self) -> frozenset[str]:  # type: ignore[override]
        """What the other score reads."""
        return self.other.reads

    @property
    def chained(self) -> bool:  # type: ignore[override]
        """Whether the other score's choices hang on each other."""
        return self.other.chained

    def tables(self, length: int, keep: int) -> dict[str, Tensor]:
        """The other score's."""
        return self.other.tables(length, keep)

    def layers(self, depth: int) -> tuple[int, ...]:
        """The other score's."""
        return self.other.layers(depth)

    def measure(self, tower: Tower, keep: int) -> Measured:
        """What the other score measures."""
        return self.other.measure(tower, keep)

    def __call__(self, seen: Seen, keep: int) -> Tensor:
        """The other score's rank, counted down from 0, above it the places, [G, n]."""
        scores = self.other(seen, keep)
        scores = seen.runs(scores.sum(1)) if scores.dim() == 3 else scores
        n = scores.shape[1]
        count = min(round(self.share * n), keep // 2)
        held = torch.zeros_like(scores)
        for turned in seen.turned():  # cosines and sines, [B, S, d]
            mean = seen.tokens(turned).mean(-1)
            held = torch.maximum(held, (ranks(mean) < count).float())
        return held * n - ranks(scores).float()

    def flops(self, sizes: Sizes) -> float:
        """The other score's, and the means."""
        return self.other.flops(sizes) + 2.0 * sizes.tokens * sizes.head_dim
