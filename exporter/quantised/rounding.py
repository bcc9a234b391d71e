"""A weight as whole numbers: code * scale, rounded to nearest, symmetric around 0.

Letters: N outputs of a product, K its inputs, G groups of inputs that share a scale; int8 has one scale
an output (G = 1).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ...engines.bundle.manifest import Quantisation

BITS = {"int8": 8, "int4": 4}
CODES, SCALES = ".codes", ".scales"
"""Behind a tensor's name in the bundle's file."""
AT_ONCE = 1 << 18
"""Elements that are rounded at once, so that what is between stays in the processor's cache."""


@dataclass(frozen=True)
class Rounding:
    """How weights [N, K] become codes.

    Attributes:
        how: codes and groups.
        dtype: of the scales.
    """

    how: Quantisation
    dtype: torch.dtype

    @property
    def largest(self) -> int:
        """The largest code; the smallest is one further from 0."""
        return 2 ** (BITS[self.how.kind] - 1) - 1

    @property
    def transposed(self) -> bool:
        """Whether codes lie in the file with the inputs first, as the CPU's kernels read int8."""
        return self.how.kind == "int8"

    @property
    def stored(self) -> torch.dtype:
        """Of the codes in the file."""
        return torch.int8 if self.how.kind == "int8" else torch.uint8

    def reach(self, scales: torch.Tensor) -> torch.Tensor:
        """The largest numbers that codes with these scales can stand for, in the scales' type."""
        return (scales.float() * (self.largest + 1)).to(self.dtype)

    def scales_shape(self, shape: torch.Size) -> tuple[int, ...]:
        """[N] of int8, [N, G] of int4."""
        n, k = shape
        return (n,) if self.how.group_size is None else (n, k // self.how.group_size)

    def codes_shape(self, shape: torch.Size) -> tuple[int, ...]:
        """As they lie in the file: int8 [K, N], int4 [N, K / 2], two in a byte."""
        n, k = shape
        return (k, n) if self.transposed else (n, k // 2)

    def weight_shape(self, codes: Sequence[int]) -> list[int]:
        """[N, K] of a weight, from the shape of its codes in the file."""
        first, last = codes
        return [last, first] if self.transposed else [first, 2 * last]

    def covers(self, name: str) -> bool:
        """Whether a product's weight of this name is stored as codes."""
        return True

    def encoded(self, weight: torch.Tensor, name: str = "") -> tuple[torch.Tensor, torch.Tensor]:
        """Codes as they lie in the file, and scales.

        Of two int4 codes in a byte the one of the even input lies in the low half.

        Args:
            weight: [N, K], of any floating-point type.
            name: of it.
        """
        codes = torch.empty(self.codes_shape(weight.shape), dtype=self.stored)
        scales = torch.empty(self.scales_shape(weight.shape), dtype=self.dtype)
        for rows, found, scale in self._rounded(weight):
            scales[rows] = scale.view(scales[rows].shape)
            self._lay(codes, rows, found.to(torch.int8))
        return codes, scales

    def _lay(self, codes: torch.Tensor, rows: slice, found: torch.Tensor) -> None:
        """Put int8 [n, K] of these outputs where they lie in the file."""
        if self.transposed:
            codes[:, rows] = found.T.contiguous()  # faster than in one go
        else:
            bits = found.view(torch.uint8) & 15
            codes[rows] = bits[:, ::2] | bits[:, 1::2] << 4

    def decoded(self, weight: torch.Tensor, name: str = "") -> torch.Tensor:
        """What the codes of a weight stand for, [N, K] of the scales' type."""
        out = torch.empty(weight.shape, dtype=self.dtype)
        for rows, found, scale in self._rounded(weight):
            parts = found.view(*scale.shape, -1) * scale.float()[..., None]
            out[rows] = parts.view(found.shape).to(self.dtype)
        return out

    def unpacked(self, codes: torch.Tensor) -> torch.Tensor:
        """int8 [N, K] from codes as they lie in the file."""
        if self.transposed:
            return codes.T
        signed = codes.view(torch.int8)
        pairs = torch.stack([signed << 4 >> 4, signed >> 4], -1)  # >> keeps the sign
        return pairs.flatten(-2)

    def _rounded(self, weight: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """Rows, their codes as float32 [n, K], their scales [n, G]."""
        n, k = weight.shape
        step = max(64, AT_ONCE // k)
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            part = weight[rows].float().view(rows.stop - start, -1, self.how.group_size or k)
            scale = self.scale_of(part)
            codes = (part / scale.float()[..., None]).round_()
            yield rows, codes.view(-1, k), scale

    def scale_of(self, groups: torch.Tensor) -> torch.Tensor:
        """[...] of weights [..., K / G]: the smallest at which every weight has a code; 1 for zeros."""
        exact = torch.maximum(groups.amax(-1) / self.largest, groups.amin(-1) / -(self.largest + 1))
        scale = exact.to(self.dtype)
        bits = scale.view(torch.int32 if self.dtype.itemsize == 4 else torch.int16)
        bits += (scale.float() < exact).to(
            bits.dtype
        )  # the next number up, where it was rounded down
        return scale.masked_fill_(scale == 0, 1)
