"""Scores that pick tokens one after the other: the one picked first is worth most."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ..base import Score, Seen, Sizes, option_class, unit
from .reference import greedy_order


class _Greedy(Score):
    """Picks far from what was picked, by 1 - cosine of the hidden states."""

    chained = True

    def __call__(self, seen: Seen, keep: int) -> Tensor:
        """The order of picking, [G, n]; the rest is 0."""
        rows = unit(seen.tokens())
        distance = 1 - rows @ rows.transpose(1, 2)
        first = self.first(rows, distance)
        return greedy_order(distance, first, torch.ones_like(first), keep)

    def first(self, rows: Tensor, distance: Tensor) -> Tensor:
        """The highest is picked first, [G, n].

        Args:
            rows: of length 1, [G, n, D].
            distance: [G, n, n].
        """
        raise NotImplementedError

    def flops(self, sizes: Sizes) -> float:
        """All distances, and a row of them at each step."""
        n, keep = sizes.tokens / sizes.groups, sizes.keep / sizes.groups
        return sizes.groups * (2.0 * n * n * sizes.hidden + 4.0 * keep * n)


@option_class
class DivPrune(_Greedy):
    """The most diverse tokens; first comes the one whose nearest neighbour is farthest."""

    name = "divprune"
    about = "how far a token is from all tokens picked before it"
    source = "DivPrune, arXiv 2503.02175, written from the paper's rule (its code is CC BY-NC 4.0)"

    def first(self, rows: Tensor, distance: Tensor) -> Tensor:
        """The distance from the nearest other token."""
        place = torch.arange(distance.shape[1], device=distance.device)
        itself = (place[:, None] == place[None]) * 4.0  # farther than any
        return (distance + itself).amin(2)


@option_class
class ToDRE(_Greedy):
    """ToDRE's first stage: greedy k-centre. First comes the token farthest from the mean of all.

    The paper's abstract leaves the first token open; its second stage, which drops all tokens from the layer
    on that attends to none, is a fixed layer here: the last one.
    """

    name = "todre"
    about = "how far a token is from all tokens picked before it, the outermost first"
    source = "ToDRE, arXiv 2505.18757, by its abstract and a review"

    def first(self, rows: Tensor, distance: Tensor) -> Tensor:
        """The distance from the mean direction."""
        return 1 - (rows * unit(rows.mean(1, keepdim=True))).sum(2)


@option_class
class MMTok(Score):
    """MMTok's vision half: the tokens that cover all others best.

    How well a token covers another one is a softmax of their cosines; the half that covers the question is
    left out, so that a picture is the same for every question. Of the tokens as the language model gets
    them, where MMTok takes CLIP's before the projector.

    Attributes:
        temperature: of the softmax.
    """

    chained = True
    name = "mmtok"
    about = "how much a token adds to what the tokens picked before it cover"
    source = "MMTok, arXiv 2508.18264, code under Apache-2.0"

    temperature: Annotated[float, Field(gt=0, le=100)] = 0.2

    def __call__(self, seen: Seen, keep: int) -> Tensor:
        """The order of picking, [G, n]; the rest is 0."""
        rows = unit(seen.tokens())
        cover = (rows @ rows.transpose(1, 2) / self.temperature).softmax(-1)
        return torch.ops.luvc.cover_order(cover, keep)

    def flops(self, sizes: Sizes) -> float:
        """All cosines, and all of what is covered at each step."""
        n, keep = sizes.tokens / sizes.groups, sizes.keep / sizes.groups
        return sizes.groups * (2.0 * n * n * sizes.hidden + 3.0 * keep * n * n)
