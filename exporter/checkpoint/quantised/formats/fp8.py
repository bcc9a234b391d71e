"""Fine-grained FP8, as transformers, DeepSeek and Qwen store it, and one scale for each weight.

weight float8 (E4M3) [N, K], weight_scale_inv [N / n, K / k] of blocks [n, k], a factor in spite of its
name; or one weight_scale.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch

from .....errors import shown
from ..float8 import scaled, weight_shape
from ..format import Format
from ..parts import Parts

ROUNDED = "activations are not rounded to eight bits, as the checkpoint's own runtime does"


class Reader(Format):
    """FP8 with scales of blocks or weights."""

    PARTS: ClassVar[tuple[str, ...]] = ("weight", "weight_scale_inv", "weight_scale")
    UNREAD: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("activation_scale", "input_scale", "k_scale", "v_scale", "q_scale"),
        "scales of activations or caches",
    )

    def check(self) -> None:
        """Refuse what the config says and this reader does not know."""
        block = self.told("weight_block_size")
        sizes = block if isinstance(block, (list, tuple)) else [block]
        if block is not None and not (
            len(sizes) == 2 and all(type(size) is int and size > 0 for size in sizes)
        ):
            raise self.unknown(f"weight_block_size {shown(block)}", "outputs and inputs are read")
        self.block = None if block is None else (sizes[0], sizes[1])
        self.only(("e4m3",), "fmt", default="e4m3")

    @property
    def about(self) -> str:
        """The format for people."""
        blocks = f"blocks of {self.block[0]} x {self.block[1]}" if self.block else "each weight"
        return f"FP8 (E4M3) with a scale for {blocks}"

    @property
    def lost(self) -> list[str]:
        """What its runtime rounds besides weights."""
        return [ROUNDED]

    def shape(self, parts: Parts) -> tuple[int, int]:
        """[N, K] of a weight."""
        return weight_shape(parts)

    def numbers(self, parts: Parts) -> torch.Tensor:
        """The weight [N, K] as the library makes numbers of it."""
        part = "weight_scale" if "weight_scale" in parts else "weight_scale_inv"
        return scaled(parts, part, self.block or self.shape(parts))
