"""AWQ, as AutoAWQ and transformers store it ("gemm").

qweight int32 [K, N / 8], qzeros int32 [G, N / 8], scales [G, N]: of each eight outputs a word holds those of
`ORDER`, the lowest bits first.
"""

from typing import ClassVar

import torch

from ..coded import Coded, unpacked
from ..format import FLOATS, CodedFormat, group_count
from ..parts import Parts

ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Four bits of a word that hold output 0, 1, ... of eight."""


class Reader(CodedFormat):
    """AWQ of four bits, asymmetric."""

    PARTS: ClassVar[tuple[str, ...]] = ("qweight", "qzeros", "scales")

    def check(self) -> None:
        """Refuse what the config says and this reader does not know."""
        self.only((4,), "bits", "w_bit", default=4)
        version = self.told("version", "checkpoint_format", "format", default="gemm")
        if str(version).lower() != "gemm":
            raise self.unknown(f"version {version!r:.40}", "gemm is read")
        self.size = self.group_size("group_size", "q_group_size", default=128)

    @property
    def about(self) -> str:
        """The format for people."""
        return f"AWQ, 4 bits with a scale and a zero for each {self.size} inputs"

    def shape(self, parts: Parts) -> tuple[int, int]:
        """[N, K] of a weight."""
        words = parts.entry("qweight", "I32", ndim=2)
        groups, n = parts.entry("scales", *FLOATS, ndim=2).shape
        k = words.shape[0]
        if words.shape[1] * 8 != n:
            raise parts.wrong("scales", f"does not fit {words}")
        group_count(parts, "scales", k, self.size, groups)
        return n, k

    def coded(self, parts: Parts) -> Coded:
        """The weight as whole numbers and scales."""
        n, k = self.shape(parts)
        groups = parts.entry("scales").shape[0]
        codes = parts.read("qweight", "I32", shape=(k, n // 8))
        zeros = parts.read("qzeros", "I32", shape=(groups, n // 8))
        return Coded(_outputs(codes), parts.read("scales").T.contiguous(), _outputs(zeros))


def _outputs(words: torch.Tensor) -> torch.Tensor:
    """uint8 [N, rows] of int32 [rows, N / 8]."""
    nibbles = unpacked(words, 4).view(words.shape[0], -1, 8)
    return nibbles[..., ORDER].flatten(1).T.contiguous()
