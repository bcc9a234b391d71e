"""Pictures and videos: opening, bringing to a layout's size, pixel values. Letters: P patches."""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import LuvcError
from .bundle.manifest import Layout


@dataclass(frozen=True)
class Video:
    """Frames in order.

    Attributes:
        frames: PIL images of one size.
        fps: how many of them show a second, in the mean.
        seen: when each was seen, seconds; empty where they follow each other at `fps`.
    """

    frames: tuple[Any, ...]
    fps: float
    seen: tuple[float, ...] = ()

    @property
    def times(self) -> tuple[float, ...]:
        """When each frame was seen, seconds."""
        return self.seen or tuple(n / self.fps for n in range(len(self.frames)))

    def sample(self, count: int) -> "Video":
        """`count` frames at equal distances, the first and the last among them."""
        chosen = np.linspace(0, len(self.frames) - 1, count).round().astype(int)
        frames, times = (tuple(x[i] for i in chosen) for x in (self.frames, self.times))
        return Video(frames, self.fps * count / len(self.frames), times)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of a frame."""
        return self.frames[0].size


Visual = Any  # a PIL image or a Video
UNREADABLE = (OSError, SyntaxError, TypeError, ValueError)  # what Pillow raises for a broken file


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


def frames_of(visual: Visual) -> int:
    """Frames of a video; 0 for an image."""
    return len(visual.frames) if isinstance(visual, Video) else 0


def pixel_values(processor: Any, visuals: Sequence[Visual], layout: Layout) -> np.ndarray:
    """Pixels of a prompt's images or videos, float32 [layout.pixel_shape], joined along the first axis.

    Args:
        processor: the Hugging Face image processor; it sees all images at once, because
            LLaVA-OneVision's cuts tiles only of one that stands alone.
        visuals: what to show.
        layout: chosen for them.

    Raises:
        LuvcError: the processor makes another shape of them than the layout's.
    """
    if isinstance(visuals[0], Video):
        return np.concatenate([_video_pixels(processor, v, layout) for v in visuals])
    values = _process(processor, visuals, layout)
    wanted = (len(visuals) * layout.pixel_shape[0], *layout.pixel_shape[1:])
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


def _process(processor: Any, images: Sequence[Any], layout: Layout) -> np.ndarray:
    images = to_layout(processor, images, layout)
    found = processor([images], return_tensors="np", **layout.processor_options)
    values = np.asarray(found["pixel_values"])
    if "pixel_attention_mask" in found and values.ndim == 3:  # patches padded to the longest tile
        values = values[:, : layout.pixel_shape[-2]]
    return values


def _video_pixels(processor: Any, video: Video, layout: Layout) -> np.ndarray:
    """Patches [time, P, C * s * p * p] of a video, s frames a step.

    The processor repeats a single frame s times along the patch's time axis, so a step takes its k-th
    frame from the k-th place of that frame's patches.
    """
    frames = [_process(processor, [frame], layout) for frame in video.frames]
    time, patches, values = layout.pixel_shape
    span = layout.frames // time
    split = np.stack([f.reshape(patches, 3, span, -1) for f in frames])
    steps = split.reshape(time, span, patches, 3, span, -1)
    joined = np.stack([steps[:, k, :, :, k] for k in range(span)], 3)
    return np.ascontiguousarray(joined.reshape(time, patches, values), dtype=np.float32)


def is_visual(part: Any) -> bool:
    """Whether a content part is an image or a video; `image_url` is OpenAI's name of an image."""
    return isinstance(part, Mapping) and part.get("type") in ("image", "image_url", "video")


def image_source(part: Mapping) -> Any:
    """What an image part holds, as `open_image` takes it; None where it holds nothing."""
    for key in ("image", "path", "url", "image_url"):
        found = part.get(key)
        found = found.get("url") if isinstance(found, Mapping) else found
        if found is not None:
            return found
    return None


def open_visual(part: Mapping) -> Visual:
    """The image or video of a content part.

    Raises:
        LuvcError: nothing to show in it, or not readable.
    """
    if part["type"] == "video":
        return open_video(part.get("video"), part.get("fps", 1.0))
    source = image_source(part)
    if source is None:
        raise LuvcError(
            "an image part needs 'image' (a path, data: URL, bytes, array or PIL image) or 'image_url'"
        )
    return open_image(source)


def open_video(source: Any, fps: float = 1.0) -> Video:
    """A video from its frames.

    Args:
        source: a list of frames (as `open_image` takes them), a folder of pictures in the order of their
            names, or an animated picture file (GIF, WebP, PNG).
        fps: frames that show a second.

    Raises:
        LuvcError: none of these, no frames, or frames of several sizes.
    """
    if not isinstance(fps, (int, float)) or not fps > 0:
        raise LuvcError(f"the fps of a video must be a number above 0, got {fps!r}")
    frames = _frames_at(Path(source)) if isinstance(source, (str, os.PathLike)) else source
    if isinstance(frames, bytes) or not isinstance(frames, (Sequence, np.ndarray)):
        raise LuvcError(
            "a video is the list of its frames (paths, arrays or PIL images), a folder of pictures or an "
            f"animated picture, got {type(source).__name__}; take frames out of other files first"
        )
    opened = tuple(open_image(frame) for frame in frames)
    if not opened or len({frame.size for frame in opened}) > 1:
        raise LuvcError(
            f"a video needs frames of one size, {source!r:.80} has none or several sizes"
        )
    return Video(opened, float(fps))


def _frames_at(path: Path) -> list[Any]:
    """Frames of a folder or of an animated picture."""
    from PIL import Image, ImageSequence

    try:
        if path.is_dir():
            known = Image.registered_extensions()
            return sorted(p for p in path.iterdir() if p.suffix.lower() in known)
        with Image.open(path) as animation:
            return [frame.convert("RGB") for frame in ImageSequence.Iterator(animation)]
    except UNREADABLE as e:
        raise LuvcError(
            f"video {_brief(path)} cannot be read ({_reason(e)}): give a folder of frames or an "
            "animated picture"
        ) from e


def open_image(source: Any) -> Any:
    """A PIL image in RGB, upright.

    Args:
        source: PIL image, array [H, W, 3] uint8, bytes of a file, a local path or a data: URL.

    Raises:
        LuvcError: not readable as an image; says why.
    """
    from PIL import Image, ImageOps

    try:
        image = _decoded(source)
        if 0 in image.size:
            raise LuvcError(
                f"the image has {image.width}x{image.height} pixels; it needs 1 or more each way"
            )
        return ImageOps.exif_transpose(image).convert("RGB")
    except LuvcError:
        raise
    except UNREADABLE as e:
        shown = source if isinstance(source, (str, os.PathLike)) else type(source).__name__
        raise LuvcError(f"image {_brief(shown)} cannot be read: {_reason(e)}") from e
    except Image.DecompressionBombError as e:
        raise LuvcError(f"the image is too large: {e}; scale it down first") from e


def _decoded(source: Any) -> Any:
    """A PIL image; of a file, its header."""
    from PIL import Image

    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        return Image.fromarray(source)
    if isinstance(source, (bytes, bytearray)):
        return Image.open(io.BytesIO(source))
    if isinstance(source, str) and source.startswith("data:"):
        return Image.open(io.BytesIO(from_base64(source.encode())))
    if isinstance(source, (str, os.PathLike)):
        return Image.open(_local_path(str(source)))
    raise LuvcError(
        f"an image is a path, data: URL, bytes, array or PIL image, got {type(source).__name__}"
    )


def from_base64(text: bytes) -> bytes:
    """The bytes behind base64, which may be broken into lines, or behind a data: URL of it.

    Raises:
        binascii.Error: it is something else.
    """
    if text.startswith(b"data:"):
        text = text.partition(b",")[2]
    return base64.b64decode(text.translate(None, b"\r\n"), validate=True)


def _local_path(source: str) -> Path:
    if source.startswith(("http://", "https://")):
        raise LuvcError(f"image {_brief(source)} is remote; download it and give the file")
    return Path(source.removeprefix("file://"))


def _brief(source: Any) -> str:
    """A path or URL as errors name it, at most 80 characters: it may hold a whole picture."""
    text = str(source)
    return text if len(text) <= 80 else f"{text[:40]}...{text[-37:]}"


def _reason(error: Exception) -> str:
    """What an error says, without the name of the file, which may be as long."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "it is of no known format"
    return getattr(error, "strerror", None) or f"{error!s:.80}"
