"""PaddleOCR-VL: SigLIP with a resampled table beside rotary positions, a projector on blocks, ERNIE 4.5."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from ....engines.bundle.layout import Layout
from ...planning.flops import EncoderShape
from ...planning.grid import Grid
from ..adapter import GridState
from ..rope import RopeAdapter, RotaryAdapter, resampled


class Adapter(RopeAdapter):
    """Images of any size; patches are in raster order in the checkpoint too."""

    modules: ClassVar[tuple[str, ...]] = ("model.visual", "model.projector")
    visual_token: ClassVar[str] = "<|IMAGE_PLACEHOLDER|>"
    heads = RotaryAdapter.heads  # of a matrix each

    @classmethod
    def shape(cls, config: Any) -> EncoderShape:
        """Widths for the cost model: a block's patches side by side, then two linear layers."""
        v, k = config.vision_config, cls.multiple(config)
        blocks = v.hidden_size * k.tokens
        widths = (blocks, blocks, config.text_config.hidden_size)
        return EncoderShape(
            layers=v.num_hidden_layers,
            hidden=v.hidden_size,
            intermediate=v.intermediate_size,
            prefix=0,
            patch_values=v.num_channels * v.patch_size**2,
            shuffle=k.tokens,
            projector=widths,
        )

    def __init__(self, model: nn.Module, layout: Layout):
        super().__init__(model, layout)
        self.vision = self.vision.vision_model

    @property
    def layers(self) -> nn.ModuleList:
        """The tower's layers."""
        return self.vision.encoder.layers

    @property
    def rotary(self) -> nn.Module:
        """Of all layers."""
        return self.vision.encoder.rotary_pos_emb

    def start(self, grid: Grid) -> GridState:
        """The table of positions, resampled to the grid once."""
        state, e = super().start(grid), self.vision.embeddings
        state.tables["absolute"] = resampled(e, e.position_embedding, grid)
        return state

    def embed(self, pixels: torch.Tensor, state: GridState) -> torch.Tensor:
        """Patches [N, P, channels, height, width] and their resampled positions."""
        p = self.vision.embeddings.patch_embedding
        x = F.linear(pixels.flatten(2), p.weight.flatten(1), p.bias)
        return x + state.tables["absolute"].to(x.dtype)

    def block(self, layer: int, x: torch.Tensor, state: GridState) -> torch.Tensor:
        """One layer on all entries at once."""
        b: Any = self.layers[layer]
        attended = self.self_attention(b.self_attn, b.layer_norm1(x), layer, state)
        x = x + b.self_attn.out_proj(attended)
        return x + b.mlp(b.layer_norm2(x))

    def project(self, x: torch.Tensor, taps: list[torch.Tensor], grid: Grid) -> torch.Tensor:
        """Two norms, blocks, two linear layers."""
        p = self.model.model.projector
        x = self.blocked(p.pre_norm(self.vision.post_layernorm(x)), grid)
        x = x.unflatten(1, (-1, self.side**2)).flatten(2)
        return p.linear_2(p.act(p.linear_1(x)))
