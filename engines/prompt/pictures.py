"""Pictures: opening them, checked before they are decoded. What a model sees: pixels.py."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import LuvcError
from ..data_urls import from_base64, is_data_url

MEGAPIXELS = 50
"""Of a picture, as it comes and as a processor's resize makes it."""
SIDE = 65_535
"""Longest side in pixels: a JPEG's. Narrow pictures cost more than their pixels say."""
DEEP = ("I;16", "I;16L", "I;16B", "I;16N")  # Pillow's names of 16-bit grey


def image_source(part: Mapping) -> Any:
    """What an image part holds, as `open_image` takes it; None where it holds nothing."""
    for key in ("image", "path", "url", "image_url"):
        found = part.get(key)
        found = found.get("url") if isinstance(found, Mapping) else found
        if found is not None:
            return found
    return None


def open_image(source: Any, megapixels: float = MEGAPIXELS) -> Any:
    """A PIL image in RGB, upright, on white where it is transparent.

    Args:
        source: PIL image, array [H, W, 3] uint8, bytes of a file, a local path or a data: URL.
        megapixels: most it may have.

    Raises:
        LuvcError: not readable as an image, or larger than the bounds; says why.
    """
    from PIL import Image, ImageOps

    try:
        image = _opened(source)
        check_size(image.size, megapixels)
        deep = image.mode in DEEP or (image.mode == "I" and image.format in ("PNG", "PPM"))
        return as_rgb(ImageOps.exif_transpose(image), deep)
    except LuvcError:
        raise
    except Image.DecompressionBombError as e:
        raise LuvcError(f"the image is too large: {e}; scale it down first") from e
    except Exception as e:  # decoders raise what they like
        named = source if isinstance(source, (str, os.PathLike)) else type(source).__name__
        raise LuvcError(f"image {brief_path(named)} cannot be read: {reason_of(e)}") from e


def check_size(size: tuple[int, int], megapixels: float) -> None:
    """Refuse a picture of (width, height) pixels that is empty or larger than the bounds.

    Raises:
        LuvcError: it is.
    """
    width, height = size
    if 0 in size:
        raise LuvcError(f"the image has {width}x{height} pixels; it needs 1 or more each way")
    if width * height > megapixels * 1e6 or max(size) > SIDE:
        raise LuvcError(
            f"the image has {width}x{height} pixels, the limit is {megapixels:g} megapixels and {SIDE} "
            "pixels a side; scale it down first"
        )


def as_rgb(image: Any, deep: bool = False) -> Any:
    """A PIL image in RGB as Hugging Face's `convert_to_rgb` makes it: what is transparent becomes white.

    Args:
        image: of any mode.
        deep: it is grey of 16 bits, which are scaled to 8 (Pillow itself would cut them off).

    Raises:
        LuvcError: integers of 32 bits or floats, whose white is unknown.
    """
    from PIL import Image

    if deep:
        return _from_16_bits(image)
    if image.mode in ("I", "F"):
        kind = "integers of 32 bits" if image.mode == "I" else "floats"
        raise LuvcError(
            f"the image holds {kind}, and nothing says which is white: give uint8 [H, W, 3]"
        )
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _from_16_bits(image: Any) -> Any:
    from PIL import Image

    wide = np.asarray(image).astype(np.uint32)
    grey = ((wide * 255 + 32767) // 65535).astype(np.uint8)
    grey[wide == image.info.get("transparency", -1)] = 255
    return Image.fromarray(grey).convert("RGB")


def _opened(source: Any) -> Any:
    """A PIL image; of a file, its header."""
    from PIL import Image

    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        if source.dtype == np.uint8 and (source.ndim == 2 or source.shape[2:] in ((3,), (4,))):
            return Image.fromarray(source)
        raise LuvcError(
            f"an array {list(source.shape)} of {source.dtype} is no picture: give uint8 [H, W, 3]"
        )
    if isinstance(source, (bytes, bytearray)):
        return Image.open(io.BytesIO(source))
    if isinstance(source, str) and is_data_url(source):
        return Image.open(io.BytesIO(from_base64(source)))
    if isinstance(source, (str, os.PathLike)):
        return Image.open(_local_path(str(source)))
    raise LuvcError(
        f"an image is a path, data: URL, bytes, array or PIL image, got {type(source).__name__}"
    )


def _local_path(source: str) -> Path:
    if source.lower().startswith(("http://", "https://")):
        raise LuvcError(f"image {brief_path(source)} is remote; download it and give the file")
    return Path(source.removeprefix("file://"))


def brief_path(source: Any) -> str:
    """A path or URL as errors name it, at most 80 characters: it may hold a whole picture."""
    text = str(source)
    return text if len(text) <= 80 else f"{text[:40]}...{text[-37:]}"


def reason_of(error: Exception) -> str:
    """What an error says, without the name of the file, which may be as long."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "it is of no known format"
    said = getattr(error, "strerror", None) or f"{error!s:.80}"
    return said or type(error).__name__
