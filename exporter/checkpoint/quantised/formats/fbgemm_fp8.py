"""FP8 of fbgemm, as transformers stores it: weight float8 (E4M3) [N, K], weight_scale [N, 1]."""

from collections.abc import Mapping
from typing import ClassVar

import torch

from ..float8 import scaled, weight_shape
from ..format import Format
from ..parts import Parts
from .fp8 import ROUNDED


class Reader(Format):
    """FP8 with scales of outputs."""

    PARTS: ClassVar[tuple[str, ...]] = ("weight", "weight_scale")
    UNREAD: ClassVar[Mapping[str, str]] = {"input_scale_ub": "the largest scale of activations"}

    def check(self) -> None:
        """All it says is of activations."""

    @property
    def about(self) -> str:
        """The format for people."""
        return "FP8 (E4M3) with a scale for each output"

    @property
    def lost(self) -> list[str]:
        """What its runtime rounds besides weights."""
        return [ROUNDED]

    def shape(self, parts: Parts) -> tuple[int, int]:
        """[N, K] of a weight."""
        return weight_shape(parts)

    def numbers(self, parts: Parts) -> torch.Tensor:
        """The weight [N, K] as the library makes numbers of it."""
        return scaled(parts, "weight_scale", (1, self.shape(parts)[1]))
