"""LightOnOCR: Pixtral's tower and merger in front of Qwen3, without row ends in the prompt."""

from typing import ClassVar

from . import mistral3


class Adapter(mistral3.Adapter):
    """One image of any size."""

    tower: ClassVar[str] = "model.vision_encoder"
    projector: ClassVar[str] = "model.vision_projection"
    modules: ClassVar[tuple[str, ...]] = ("model.vision_encoder", "model.vision_projection")
    visual_token: ClassVar[str] = "<|image_pad|>"
    ends: ClassVar[tuple[str, ...]] = ()
