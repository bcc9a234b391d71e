"""Qwen3-VL: a table of positions beside the rotary ones, features of inner layers (DeepStack)."""

from dataclasses import replace
from typing import Any, ClassVar

import torch

from ....engines.bundle.layout import Sampling
from ...planning.flops import EncoderShape
from ...planning.grid import Grid
from ..adapter import GridState, ImageGeometry
from ..rope import QwenVLAdapter, resampled


class Adapter(QwenVLAdapter):
    """A resampled table of positions beside the rotary ones; features of inner layers (DeepStack)."""

    sampling: ClassVar[Sampling] = "ends"
    steps_apart: ClassVar[bool] = True

    @classmethod
    def shape(cls, config: Any) -> EncoderShape:
        """Widths for the cost model; a merger for each tapped layer."""
        taps = len(config.vision_config.deepstack_visual_indexes)
        return replace(super().shape(config), projectors=1 + taps)

    @classmethod
    def traits(cls, config: Any) -> dict[str, Any]:
        """Visual features that join the first language layers."""
        return {"deepstack": len(config.vision_config.deepstack_visual_indexes)}

    @classmethod
    def expansion(
        cls, tokenizer: Any, processor: Any, geometry: ImageGeometry, tokens: int
    ) -> list[tuple[str, int]]:
        """A video: its steps one by one (Qwen3VLProcessor.replace_video_token)."""
        if not geometry.frames:
            return super().expansion(tokenizer, processor, geometry, tokens)
        step = [
            ("<{seconds} seconds><|vision_start|>", 1),
            (cls.visual_token, tokens // geometry.tiles),
            ("<|vision_end|>", 1),
        ]
        return step * geometry.tiles

    @property
    def taps(self) -> tuple[int, ...]:
        """Tapped layers."""
        return tuple(self.vision.deepstack_visual_indexes)

    def start(self, grid: Grid) -> GridState:
        """The table of positions, resampled to the grid once."""
        state = super().start(grid)
        state.tables["absolute"] = resampled(self.vision, self.vision.pos_embed, grid)
        return state

    def embed(self, pixels: torch.Tensor, state: GridState) -> torch.Tensor:
        """Patches and their resampled positions."""
        x = super().embed(pixels, state)
        return x + state.tables["absolute"].to(x.dtype)

    def project(self, x: torch.Tensor, taps: list[torch.Tensor], grid: Grid) -> torch.Tensor:
        """The merger of the last layer, then those of the tapped ones along the last axis."""
        pairs = zip(
            (self.vision.merger, *self.vision.deepstack_merger_list), (x, *taps), strict=True
        )
        return torch.cat([self.merger(module, t, grid) for module, t in pairs], -1)
