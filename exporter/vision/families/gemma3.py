"""Gemma 3: SigLIP, one image size, average pooling, one linear layer."""

from typing import Any

import torch
import torch.nn.functional as F

from ...planning.grid import Grid
from ..absolute import AbsoluteAdapter
from ..adapter import ImageGeometry
from ..processor import named_token


class Adapter(AbsoluteAdapter):
    """Features are pooled to a coarser grid; inside an image tokens look both ways."""

    @classmethod
    def traits(cls, config: Any) -> dict[str, Any]:
        """Attention inside an image goes both ways."""
        return {"mask": "image"}

    @classmethod
    def multiple(cls, config: Any) -> Grid:
        """The kernel of the average pooling."""
        side = int(config.mm_tokens_per_image**0.5)
        kernel = cls.table(config)[1].h // side
        return Grid(kernel, kernel)

    @classmethod
    def image_token(cls, tokenizer: Any) -> str:
        """`<image_soft_token>`."""
        return named_token(tokenizer, "image_token")

    @classmethod
    def placeholder(cls, tokenizer: Any, frames: int) -> str:
        """`<start_of_image>`."""
        return named_token(tokenizer, "boi_token")

    @classmethod
    def expansion(
        cls, tokenizer: Any, processor: Any, geometry: ImageGeometry, tokens: int
    ) -> list[tuple[str, int]]:
        """Start, soft tokens, end, between empty lines (Gemma3Processor's full_image_sequence)."""
        start, end = cls.placeholder(tokenizer, 0), named_token(tokenizer, "eoi_token")
        return [(f"\n\n{start}", 1), (cls.image_token(tokenizer), tokens), (f"{end}\n\n", 1)]

    def project(self, x: torch.Tensor, taps: list[torch.Tensor], grid: Grid) -> torch.Tensor:
        """Norm, average pooling on the rectangle, norm, one matrix."""
        p = self.model.model.multi_modal_projector
        x = self.vision.post_layernorm(x).transpose(1, 2).unflatten(2, (grid.h, grid.w))
        x = F.avg_pool2d(x, p.kernel_size).flatten(2).transpose(1, 2)
        return torch.matmul(p.mm_soft_emb_norm(x), p.mm_input_projection_weight).type_as(x)
