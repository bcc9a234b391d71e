"""Qwen3.5: Qwen3-VL's tower without inner features, a language model with linear attention."""

from typing import Any, ClassVar

import torch

from ....engines.bundle.layout import Sampling
from ...planning.flops import EncoderShape
from ...planning.grid import Grid
from ..rope import RopeAdapter
from . import qwen3_vl


class Adapter(qwen3_vl.Adapter):
    """A resampled table of positions beside the rotary ones; images only."""

    video: ClassVar[bool] = False
    sampling: ClassVar[Sampling] = RopeAdapter.sampling

    @classmethod
    def shape(cls, config: Any) -> EncoderShape:
        """Widths for the cost model; one merger."""
        return RopeAdapter.shape.__func__(cls, config)  # type: ignore[attr-defined]

    @classmethod
    def traits(cls, config: Any) -> dict[str, Any]:
        """Nothing joins the language layers."""
        return {}

    @property
    def taps(self) -> tuple[int, ...]:
        """None."""
        return ()

    def project(self, x: torch.Tensor, taps: list[torch.Tensor], grid: Grid) -> torch.Tensor:
        """The merger."""
        return self.merger(self.vision.merger, x, grid)
