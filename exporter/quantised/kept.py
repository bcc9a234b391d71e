"""Weights whose whole numbers and scales a checkpoint has already: they are written as they are."""

from collections.abc import Callable, Container
from dataclasses import dataclass, field

import torch

from ...errors import LuvcError
from .rounding import AT_ONCE, Rounding

Found = Callable[[str, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Kept(Rounding):
    """Codes of a checkpoint.

    Attributes:
        names: of the weights that are kept; the other products stay numbers.
        found: int8 [N, K] and scales [N, G] of a weight, by its name and the numbers they stand for.
    """

    names: Container[str] = field(kw_only=True)
    found: Found = field(kw_only=True)

    def covers(self, name: str) -> bool:
        """Whether the checkpoint has codes for it."""
        return name in self.names

    def encoded(self, weight: torch.Tensor, name: str = "") -> tuple[torch.Tensor, torch.Tensor]:
        """The checkpoint's codes as they lie in the file, and its scales in this dtype.

        Args:
            weight: [N, K], the numbers.
            name: of it.
        """
        found, scales = self.found(name, weight)
        codes = torch.empty(self.codes_shape(weight.shape), dtype=self.stored)
        step = max(64, AT_ONCE // weight.shape[1])
        for start in range(0, len(found), step):
            rows = slice(start, min(start + step, len(found)))
            self._lay(codes, rows, found[rows])
        return codes, self._held(scales, name).view(self.scales_shape(weight.shape)).contiguous()

    def _held(self, scales: torch.Tensor, name: str) -> torch.Tensor:
        """Scales in this dtype.

        Raises:
            LuvcError: one becomes nothing or endless there.
        """
        held = scales.to(self.dtype)
        if not held.isfinite().all() or ((held == 0) & (scales != 0)).any():
            raise LuvcError(
                f"{name}: a scale of the checkpoint has no place in {self.dtype}: export with --dtype fp32 "
                "or bf16"
            )
        return held

    def decoded(self, weight: torch.Tensor, name: str = "") -> torch.Tensor:
        """What codes times scales are in this dtype, [N, K]."""
        codes, scales = self.found(name, weight)
        steps = scales.to(self.dtype).float()[..., None]
        out = torch.empty(weight.shape, dtype=self.dtype)
        step = max(64, AT_ONCE // weight.shape[1])
        for start in range(0, len(codes), step):
            rows = slice(start, min(start + step, len(codes)))
            parts = codes[rows].float().view(len(codes[rows]), steps.shape[1], -1) * steps[rows]
            out[rows] = parts.view(codes[rows].shape).to(self.dtype)
        return out
