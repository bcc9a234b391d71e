"""SmolVLM and SmolVLM2: Idefics3 with other names in the processor, and videos."""

from typing import Any, ClassVar

from ....engines.bundle.layout import Sampling
from ....errors import LuvcError
from ...planning.grid import Grid
from ..absolute import frame_side
from ..adapter import ImageGeometry
from ..processor import known_token
from . import idefics3


class Adapter(idefics3.Adapter):
    """A video's frames are one tile each, told with their times."""

    whole: ClassVar[str] = "global_image_token"
    video: ClassVar[bool] = True
    sampling: ClassVar[Sampling] = "inside"

    @classmethod
    def processor(cls) -> str:
        """Name of the family's processor class; importing it may need num2words."""
        return "SmolVLMProcessor"

    @classmethod
    def geometry(
        cls, config: Any, processor: Any, size: tuple[int, int] | None, images: int, frames: int
    ) -> ImageGeometry:
        """Frames are never split."""
        if not frames:
            return super().geometry(config, processor, size, images, frames)
        edge = int(processor.max_image_size["longest_edge"])
        side = frame_side(config, (edge, edge), size)
        grid = Grid(*(n // config.vision_config.patch_size for n in side))
        shape, options = (frames, 3, *side), {"do_image_splitting": False}
        return ImageGeometry(side, frames, shape, grid, options, images=images, frames=frames)

    @classmethod
    def placeholder(cls, tokenizer: Any, frames: int) -> str:
        """`<video>`, which need not be a token, where there are frames."""
        image = super().placeholder(tokenizer, frames)
        return getattr(tokenizer, "video_token", "<video>") if frames else image

    @classmethod
    def expansion(
        cls, tokenizer: Any, processor: Any, geometry: ImageGeometry, tokens: int
    ) -> list[tuple[str, int]]:
        """A video: how many frames of how long, and each behind its time (SmolVLMProcessor)."""
        if not geometry.frames:
            return super().expansion(tokenizer, processor, geometry, tokens)
        from transformers.models.smolvlm import processing_smolvlm as own

        fake = known_token(tokenizer, "<fake_token_around_image>")
        whole = getattr(tokenizer, "global_image_token", None) or "<global-img>"
        count, time = _in_words(geometry.frames), "{clock}"
        opening = own.DEFAULT_VIDEO_INTRO.format(frame_count=count, video_duration="{duration}")
        told = own.FRAME_TIMESTAMP_MESSAGE.format(timestamp=time)
        image = (cls.image_token(tokenizer), tokens // geometry.tiles)
        frame = [(f"{told}{fake}{whole}", 1), image, (fake, 1)]
        return [(opening, 1), *frame * geometry.frames, (own.DEFAULT_MEDIA_OUTTRO, 1)]


def _in_words(number: int) -> str:
    """A number as the processor spells it.

    Raises:
        LuvcError: the package that spells is missing.
    """
    try:
        from num2words import num2words
    except ImportError as e:
        raise LuvcError(
            f"smolvlm's prompt says in words that a video has {number} frames, and num2words is missing: "
            "pip install 'luvc-export[video]'"
        ) from e
    return num2words(number)
