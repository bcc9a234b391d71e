"""Scores that look at no token: the baselines that every method has to beat."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from .base import Score, Seen, Sizes, option_class


class _Fixed(Score):
    """One number for each place, known at export."""

    def __call__(self, seen: Seen, keep: int) -> Tensor:
        """The same for every prompt, [G, n]."""
        rows = seen.visual_index.shape[0] * seen.groups
        return seen.tables["order"][None].expand(rows, -1)

    def flops(self, sizes: Sizes) -> float:
        """Nothing is computed."""
        del sizes
        return 0.0


@option_class
class Random(_Fixed):
    """A random choice, drawn once at export.

    Attributes:
        seed: of the draw; a stage of another length draws anew.
    """

    name = "random"
    about = "nothing: a random choice, drawn once"
    source = "the baseline of UniPruneBench, arXiv 2511.02650"

    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 0

    def tables(self, length: int, keep: int) -> dict[str, Tensor]:
        """A random order of the places, float32 [length]."""
        generator = torch.Generator().manual_seed(self.seed)
        return {"order": torch.randperm(length, generator=generator).float()}


@option_class
class Uniform(_Fixed):
    """Tokens at equal steps of the raster order: the middles of `keep` equal parts."""

    name = "uniform"
    about = "nothing: tokens at equal steps"
    source = "the baseline of most papers"

    def tables(self, length: int, keep: int) -> dict[str, Tensor]:
        """1 at the places kept, float32 [length]."""
        places = (torch.arange(keep) * 2 + 1) * length // (2 * keep)
        return {"order": torch.zeros(length).scatter(0, places, 1.0)}
