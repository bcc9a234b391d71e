"""SmolVLM and SmolVLM2: Idefics3 with other names in the processor."""

from typing import ClassVar

from . import idefics3


class Adapter(idefics3.Adapter):
    """SmolVLM and SmolVLM2: Idefics3 with other names in the processor."""

    whole: ClassVar[str] = "global_image_token"

    @classmethod
    def processor(cls) -> str:
        """Name of the family's processor class; importing it may need num2words."""
        return "SmolVLMProcessor"
