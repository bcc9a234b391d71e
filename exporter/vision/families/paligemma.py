"""PaliGemma 1 / 2 and Gemma 3: SigLIP, one image size, one linear layer."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from ...planning.grid import Grid
from ..absolute import AbsoluteAdapter
from ..adapter import ImageGeometry
from ..processor_files import named_token


class PaliGemmaAdapter(AbsoluteAdapter):
    """The whole prompt, image and text, looks at all of itself; positions count from 1."""

    needs_image: ClassVar[bool] = True
    # as the published processor writes it: images, start, text, line end
    template: ClassVar[str | None] = (
        "{%- for m in messages -%}{%- if m['content'] is not string -%}{%- for p in m['content'] -%}"
        "{%- if p['type'] == 'image' -%}{{ '<image>' }}{%- endif -%}{%- endfor -%}{%- endif -%}"
        "{%- endfor -%}{{ bos_token }}{%- for m in messages -%}{%- if m['content'] is string -%}"
        "{{ m['content'] }}{%- else -%}{%- for p in m['content'] -%}{%- if p['type'] == 'text' -%}"
        "{{ p['text'] }}{%- endif -%}{%- endfor -%}{%- endif -%}{{ '\n' }}{%- endfor -%}"
    )

    @classmethod
    def traits(cls, config: Any) -> dict[str, Any]:
        """Prefix attention, positions from 1."""
        return {"mask": "prompt", "first_position": 1}

    def project(self, x: torch.Tensor, taps: list[torch.Tensor], grid: Grid) -> torch.Tensor:
        """Norm and one linear layer."""
        return self.model.model.multi_modal_projector(self.vision.post_layernorm(x))


class Gemma3Adapter(AbsoluteAdapter):
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
    def expansion(cls, tokenizer: Any, processor: Any, geometry: ImageGeometry, tokens: int):
        """Start, soft tokens, end, between empty lines (Gemma3Processor's full_image_sequence)."""
        start, end = cls.placeholder(tokenizer, 0), named_token(tokenizer, "eoi_token")
        return [(f"\n\n{start}", 1), (cls.image_token(tokenizer), tokens), (f"{end}\n\n", 1)]

    def project(self, x: torch.Tensor, taps: list[torch.Tensor], grid: Grid) -> torch.Tensor:
        """Norm, average pooling on the rectangle, norm, one matrix."""
        p = self.model.model.multi_modal_projector
        x = self.vision.post_layernorm(x).transpose(1, 2).unflatten(2, (grid.h, grid.w))
        x = F.avg_pool2d(x, p.kernel_size).flatten(2).transpose(1, 2)
        return torch.matmul(p.mm_soft_emb_norm(x), p.mm_input_projection_weight).type_as(x)
