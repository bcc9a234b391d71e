"""LLaVA-OneVision: LLaVA-NeXT's packing for one image, shrunk where it is long; several are not cut."""

from typing import Any

from . import llava_next


class Adapter(llava_next.Adapter):
    """Several images in a prompt are not cut into tiles."""

    @classmethod
    def packs(cls, config: Any, images: int) -> bool:
        """One image only."""
        return images == 1
