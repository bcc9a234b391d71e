"""Pixel values: what a layout's vision graph sees of pictures and videos. Letters: P patches."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import LuvcError, brief
from ..bundle.layout import Layout
from .pictures import MEGAPIXELS
from .videos import Video, Visual


class ImageProcessor:
    """Loads Hugging Face image processors, in their Pillow form: the same pixels everywhere."""

    @staticmethod
    def from_pretrained(source: Any, **options: Any) -> Any:
        """The image processor of a checkpoint or of a bundle's processor folder.

        Raises:
            LuvcError: the family has none without torchvision, which is not installed.
        """
        from transformers import AutoImageProcessor

        try:
            return AutoImageProcessor.from_pretrained(source, backend="pil", **options)
        except (ImportError, ValueError) as e:
            if "torchvision" not in str(e) and "Could not load any image processor" not in str(e):
                raise
            raise LuvcError(
                f"{source}: this family's image processor needs torchvision: pip install torchvision"
            ) from e


def pixel_values(
    processor: Any, visuals: Sequence[Visual], layout: Layout, megapixels: float = MEGAPIXELS
) -> np.ndarray:
    """Pixels of a prompt's images or videos, float32 [layout.pixel_shape], joined along the first axis.

    Args:
        processor: the Hugging Face image processor; it sees all images at once, because
            LLaVA-OneVision's cuts tiles only of one that stands alone.
        visuals: what to show.
        layout: chosen for them.
        megapixels: most that a picture may have on its way to the layout's size.

    Raises:
        LuvcError: the processor makes another shape of them than the layout's, refuses one, or would
            make more of it than the bound.
    """
    if isinstance(visuals[0], Video):
        in_steps = layout.frames > layout.tiles and len(layout.pixel_shape) == 3
        shown = _step_pixels if in_steps else _frame_pixels
        return np.concatenate([shown(processor, v, layout, megapixels) for v in visuals])
    return _shaped(_process(processor, visuals, layout, megapixels), len(visuals), layout)


def _shaped(values: np.ndarray, count: int, layout: Layout) -> np.ndarray:
    """Pixel values of `count` images or videos as the graph takes them.

    Raises:
        LuvcError: there are more or fewer.
    """
    wanted = (count * layout.pixel_shape[0], *layout.pixel_shape[1:])
    if values.size != np.prod(wanted) or values.shape[2 - len(wanted) :] != wanted[2:]:
        raise LuvcError(
            f"the image processor gave {values.shape}, layout {layout.name} needs {wanted}: the bundle's "
            "processor folder is another checkpoint's; export again"
        )
    return np.ascontiguousarray(values.reshape(wanted), dtype=np.float32)


def to_layout(processor: Any, images: Sequence[Any], layout: Layout) -> list[Any]:
    """PIL images in the size that a layout needs, where its tokens follow the picture's size."""
    if not layout.resize:
        return list(images)
    size, resample = layout.image_size[::-1], getattr(processor, "resample", None)
    return [image.resize(size, resample) for image in images]


def made_size(processor: Any, size: tuple[int, int]) -> tuple[int, int]:
    """The largest picture that a processor makes of one of `size` on its way, both (width, height).

    Most resize to a size of their own or into one. CLIP's brings the shorter side to a length and lets
    the longer follow before it crops; LLaVA's own may pad to a square first.
    """
    width, height = size
    if getattr(processor, "do_pad", False) and hasattr(processor, "pad_to_square"):
        width = height = max(size)
    wanted = _size(processor, "size")
    short = wanted.get("shortest_edge")
    if short and not wanted.get("longest_edge") and _follows(processor):
        least = min(width, height)
        if least < short:
            width, height = int(short * width / least), int(short * height / least)
    return width, height


def _size(processor: Any, name: str) -> dict[str, Any]:
    """A setting of sizes, where there is one."""
    return dict(getattr(processor, name, None) or {})


def _follows(processor: Any) -> bool:
    """Whether the longer side follows the shorter; LLaVA-NeXT's takes the number as a square's side."""
    return bool(getattr(processor, "do_resize", True)) and not hasattr(
        processor, "image_grid_pinpoints"
    )


def _check_made(processor: Any, image: Any, megapixels: float) -> None:
    width, height = made_size(processor, image.size)
    for name in ("size", "crop_size", "pad_size"):  # a stranger's may be any
        fixed = _size(processor, name)
        if (fixed.get("width") or 1) * (fixed.get("height") or 1) > megapixels * 1e6:
            raise LuvcError(
                f"this model's processor makes pictures of {fixed['width']}x{fixed['height']} pixels "
                f"({name}), the limit is {megapixels:g} megapixels: mend preprocessor_config.json and "
                "export"
            )
    if width * height > megapixels * 1e6:
        raise LuvcError(
            f"the image has {image.width}x{image.height} pixels, of which this model's processor makes "
            f"{width}x{height}, the limit is {megapixels:g} megapixels: cut it to a less narrow shape"
        )


def _process(
    processor: Any, images: Sequence[Any], layout: Layout, megapixels: float
) -> np.ndarray:
    images = to_layout(processor, images, layout)
    try:
        for image in images:
            _check_made(processor, image, megapixels)
        found = processor([images], return_tensors="np", **layout.processor_options)
    except (LuvcError, MemoryError):
        raise
    except Exception as e:  # extreme shapes, in its own words, or settings of strangers
        sizes = ", ".join(f"{i.width}x{i.height}" for i in images)
        raise LuvcError(
            f"the image processor refuses pictures of {sizes} pixels: {brief(e)}"
        ) from e
    values = np.asarray(found["pixel_values"])
    padded = {"pixel_attention_mask", "image_position_ids"} & found.keys()
    if padded and values.ndim == 3:  # patches, as many as the longest tile or the budget has
        values = values[:, : layout.pixel_shape[-2]]
    return values


def _frame_pixels(processor: Any, video: Video, layout: Layout, megapixels: float) -> np.ndarray:
    """Of a video whose frames are tiles: those of as many images."""
    return _shaped(_process(processor, video.frames, layout, megapixels), 1, layout)


def _step_pixels(processor: Any, video: Video, layout: Layout, megapixels: float) -> np.ndarray:
    """Patches [time, P, C * s * p * p] of a video, s frames a step.

    The processor repeats a single frame s times along the patch's time axis, so a step takes its k-th
    frame from the k-th place of that frame's patches.
    """
    frames = [_process(processor, [frame], layout, megapixels) for frame in video.frames]
    time, patches, values = layout.pixel_shape
    span = layout.frames // time
    split = np.stack([f.reshape(patches, 3, span, -1) for f in frames])
    steps = split.reshape(time, span, patches, 3, span, -1)
    joined = np.stack([steps[:, k, :, :, k] for k in range(span)], 3)
    return np.ascontiguousarray(joined.reshape(time, patches, values), dtype=np.float32)
