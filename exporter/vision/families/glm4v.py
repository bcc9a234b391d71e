"""GLM-4.1V and 4.6V-Flash: a bicubic position table, rotary positions, a strided convolution, a merger."""

from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from ....engines.bundle.layout import Sampling
from ...planning.flops import EncoderShape
from ...planning.grid import Grid
from ..adapter import GridState, ImageGeometry
from ..processor import known_token
from ..rope import RopeAdapter


class Adapter(RopeAdapter):
    """Images and videos, whose frames stand apart in the prompt, each with its time."""

    visual_token: ClassVar[str] = "<|image|>"
    video: ClassVar[bool] = True
    sampling: ClassVar[Sampling] = "after"
    steps_apart: ClassVar[bool] = True

    @classmethod
    def intermediate(cls, config: Any) -> int:
        """Of the gated MLP, which is as wide as the language model."""
        return config.vision_config.out_hidden_size

    @classmethod
    def shape(cls, config: Any) -> EncoderShape:
        """Widths for the cost model: convolution over a block, then the merger."""
        v = config.vision_config
        blocks, D = v.hidden_size * v.spatial_merge_size**2, v.out_hidden_size
        widths = (blocks, D, D, v.intermediate_size, D)
        return replace(super().shape(config), gated=True, projector=widths)

    @classmethod
    def placeholder(cls, tokenizer: Any, frames: int) -> str:
        """One token, of images or of videos."""
        return known_token(tokenizer, "<|video|>" if frames else cls.visual_token)

    @classmethod
    def expansion(
        cls, tokenizer: Any, processor: Any, geometry: ImageGeometry, tokens: int
    ) -> list[tuple[str, int]]:
        """A video: its steps one by one (replace_frame_token_id of Glm4vProcessor or Glm46VProcessor)."""
        if not geometry.frames:
            return super().expansion(tokenizer, processor, geometry, tokens)
        newer = type(processor).__name__.startswith("Glm46V")  # GLM-4.6V has glm4v's model_type too
        time = "{begins} seconds" if newer else "{begins_whole}"
        step = [
            ("<|begin_of_image|>", 1),
            (cls.image_token(tokenizer), tokens // geometry.tiles),
            (f"<|end_of_image|>{time}", 1),
        ]
        return step * geometry.tiles

    def start(self, grid: Grid) -> GridState:
        """The table of positions, sampled on the grid once (Glm4vVisionEmbeddings)."""
        table = self.vision.embeddings.position_embedding.weight.detach().float()
        side = int(table.shape[0] ** 0.5)
        at = [(torch.arange(n) + 0.5) / n * 2 - 1 for n in (grid.h, grid.w)]
        rows, columns = torch.meshgrid(*at, indexing="ij")
        places = torch.stack([columns, rows], -1)[None]
        image = table.T.reshape(1, -1, side, side)
        sampled = F.grid_sample(
            image,
            places,
            mode=self.vision.embeddings.interpolated_method,
            align_corners=False,
            padding_mode="border",
        )
        state = super().start(grid)
        state.tables["absolute"] = sampled[0].flatten(1).T
        return state

    def embed(self, pixels: torch.Tensor, state: GridState) -> torch.Tensor:
        """Patches, a norm, and the sampled positions."""
        x = self.vision.post_conv_layernorm(super().embed(pixels, state))
        return x + state.tables["absolute"].to(x.dtype)

    def project(self, x: torch.Tensor, taps: list[torch.Tensor], grid: Grid) -> torch.Tensor:
        """Norm, convolution with stride k, merger."""
        x = self.vision.post_layernorm(x).transpose(1, 2).unflatten(2, (grid.h, grid.w))
        return self.vision.merger(self.vision.downsample(x).flatten(2).transpose(1, 2))
