"""A weight as whole numbers, and how words of 32 bits hold them.

Letters: N outputs of a product, K its inputs, G groups of inputs that share a scale.
"""

from dataclasses import dataclass

import torch

AT_ONCE = 1 << 20
"""Elements that become numbers at once."""


@dataclass(frozen=True)
class Coded:
    """W = (codes - zeros) * scales.

    Attributes:
        codes: [N, K], uint8 or int8.
        scales: [N, G], of a floating-point type.
        zeros: [N, G], the codes that stand for 0; or one for all.
        groups: [K], the group of each input; None where they lie in order.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | int = 0
    groups: torch.Tensor | None = None

    def numbers(self) -> torch.Tensor:
        """[N, K] in the scales' type, rounded once, as the libraries do."""
        n, k = self.codes.shape
        found = torch.empty((n, k), dtype=self.scales.dtype)
        step = max(1, AT_ONCE // max(1, k))
        for start in range(0, n, step):
            rows = slice(start, start + step)
            found[rows] = self._rows(rows)
        return found

    def _rows(self, rows: slice) -> torch.Tensor:
        codes, scales = self.codes[rows].float(), self.scales[rows].float()
        zeros = self.zeros[rows].float() if isinstance(self.zeros, torch.Tensor) else self.zeros
        if self.groups is not None:
            if isinstance(zeros, torch.Tensor):
                zeros = zeros[:, self.groups]
            return ((codes - zeros) * scales[:, self.groups]).to(self.scales.dtype)
        parts = codes.view(*scales.shape, -1)
        if isinstance(zeros, torch.Tensor):
            zeros = zeros[..., None]
        return ((parts - zeros) * scales[..., None]).to(self.scales.dtype).view(codes.shape)


def unpacked(words: torch.Tensor, bits: int) -> torch.Tensor:
    """uint8 [..., n 32 / bits] from int32 [..., n], the lowest bits first; of 4 or 8 bits."""
    data = words.contiguous().view(torch.uint8)
    if bits == 8:
        return data
    return torch.stack([data & 15, data >> 4], -1).flatten(-2)
