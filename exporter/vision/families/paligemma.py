"""PaliGemma 1 / 2: SigLIP, one image size, one linear layer."""

from typing import Any, ClassVar

import torch

from ...planning.grid import Grid
from ..absolute import AbsoluteAdapter


class Adapter(AbsoluteAdapter):
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
