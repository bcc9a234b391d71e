"""GLM-OCR: GLM-4.1V's tower without a table of positions, with norms on queries and keys."""

from dataclasses import replace
from typing import Any

import torch

from ...planning.flops import EncoderShape
from ..rope import RopeAdapter
from . import glm4v


class Adapter(glm4v.Adapter):
    """Images and videos as GLM-4.6V's."""

    start, embed = RopeAdapter.start, RopeAdapter.embed

    @classmethod
    def intermediate(cls, config: Any) -> int:
        """Of the gated MLP."""
        return config.vision_config.intermediate_size

    @classmethod
    def shape(cls, config: Any) -> EncoderShape:
        """Widths for the cost model: the merger is as wide as the pixels have channels."""
        shape, v = super().shape(config), config.vision_config
        blocks, D = shape.projector[0], v.out_hidden_size
        return replace(shape, projector=(blocks, D, D, D * v.in_channels, D))

    def heads(self, attn: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Queries and keys through their norms."""
        q, k, v = super().heads(attn, x)
        return attn.q_norm(q), attn.k_norm(k), v
