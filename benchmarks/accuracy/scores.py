"""Scores that the product does not have, made known to its graphs: the study's own, for comparison.

Letters as in plugins/scores/base.py.
"""

from abc import abstractmethod
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from luvc.plugins.scores.base import HEADS, Score, Seen, option_class
from luvc.plugins.scores.registry import add
from luvc.plugins.scores.spectrum.contract import cutoff_bin
from luvc.plugins.scores.visiondrop import visual_attention


def low_pass(x: Tensor, rho: float) -> Tensor:
    """Ideal low-pass of [G, n, D] along n, float32."""
    bins = torch.fft.rfft(x.float(), dim=1)
    bins[:, cutoff_bin(rho, x.shape[1]) + 1 :] = 0
    return torch.fft.irfft(bins, n=x.shape[1], dim=1)


@option_class
class _OfLowPass(Score):
    """A token held against its low-pass, both of the layer's normalised input.

    Attributes:
        cutoff: share of the spectrum that passes.
    """

    source: ClassVar[str] = "ours, in place of the energy of LUVC, arXiv 2512.09010"

    cutoff: Annotated[float, Field(gt=0, le=1)] = 0.25

    def __call__(self, seen: Seen, keep: int) -> Tensor:
        """[G, n]."""
        x = seen.tokens(seen.normed())
        return self.of(x, low_pass(x, self.cutoff))

    @staticmethod
    @abstractmethod
    def of(x: Tensor, low: Tensor) -> Tensor:
        """Scores [G, n] of tokens and their low-pass, both [G, n, D]."""


@add
@option_class
class Cosine(_OfLowPass):
    """The cosine of both."""

    name = "cosine"
    about = "cosine of a token and its low-pass"

    @staticmethod
    def of(x: Tensor, low: Tensor) -> Tensor:
        """[G, n]."""
        return F.cosine_similarity(x, low, dim=-1)


@add
@option_class
class Residual(_OfLowPass):
    """How little they differ; the reverse is the spectrum's band "high"."""

    name = "residual"
    about = "least distance from the low-pass"

    @staticmethod
    def of(x: Tensor, low: Tensor) -> Tensor:
        """[G, n]."""
        return -(x - low).norm(dim=-1)


@add
@option_class
class Share(_OfLowPass):
    """How much of the token passes."""

    name = "share"
    about = "norm of the low-pass / norm of the token"

    @staticmethod
    def of(x: Tensor, low: Tensor) -> Tensor:
        """[G, n]."""
        return low.norm(dim=-1) / x.norm(dim=-1)


@add
@option_class
class VisualAttention(Score):
    """Attention that visual tokens give each other, mean over heads and queries.

    Softmax over all keys up to the query (causal), in the layer ahead.
    """

    name = "visual-attention"
    about = "attention from the visual tokens"
    source = "the rule of VisionDrop inside the language model"
    reads = frozenset({HEADS})

    def __call__(self, seen: Seen, keep: int) -> Tensor:
        """[G, n]."""
        return visual_attention(seen, seen.heads(True))
