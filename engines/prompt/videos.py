"""Videos: opening them, which of their frames a layout shows, and how a prompt says when they were seen."""

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import LuvcError, shown
from ..bundle.layout import Layout, Sampling
from .pictures import MEGAPIXELS, brief_path, image_source, open_image, reason_of
from .video_files import FileFrames

VIDEO_PICTURES = 20
"""A video's frames together may have the pixels of so many pictures."""
FPS = 1.0
"""Frames that show a second, where nothing says how many."""
LEAST_FPS = 1 / 86_400
"""A frame a day: what is slower is no video."""

Step = tuple[float, float]
"""When its first and its last frame were seen, seconds."""
TIMES: dict[str, Callable[[Step], str]] = {
    "seconds": lambda step: f"{sum(step) / 2:.1f}",
    "begins": lambda step: f"{step[0]:.1f}",
    "begins_whole": lambda step: f"{int(step[0])}",
    "clock": lambda step: f"{int(step[0] // 60):02d}:{int(step[0] % 60):02d}",
}
"""Of the next step each: "1.5", "1.0", "1" and "00:01" for one from 1 s to 2 s."""
DURATION = "duration"
"""Of the video as it came: "0:01:05"."""
MARKS = re.compile("{(" + "|".join([*TIMES, DURATION]) + ")}")

Frames = Any  # a tuple of PIL images, or FileFrames


@dataclass(frozen=True)
class Video:
    """Frames in order.

    Attributes:
        frames: PIL images of one size, or those of a file, which are decoded once they are sampled.
        fps: how many of them show a second, in the mean.
        seen: when each was seen, seconds; empty where they follow each other at `fps`.
        length: seconds of the whole that they were sampled from; 0 where they are the whole.
    """

    frames: Frames
    fps: float
    seen: tuple[float, ...] = ()
    length: float = 0.0

    @property
    def times(self) -> tuple[float, ...]:
        """When each frame was seen, seconds."""
        return self.seen or tuple(n / self.fps for n in range(len(self.frames)))

    @property
    def duration(self) -> float:
        """Of the whole, seconds."""
        return self.length or len(self.frames) / self.fps

    def sample(self, count: int, how: Sampling = "ends") -> "Video":
        """`count` frames, chosen as the family's own processor would.

        Raises:
            LuvcError: a file that can no longer be read.
        """
        chosen = sampled(len(self.frames), count, how, self.fps)
        if isinstance(self.frames, FileFrames):
            _check_frames(count, self.size, self.frames.megapixels)
            frames = self.frames.pick(chosen)
        else:
            frames = tuple(self.frames[i] for i in chosen)
        times = self.times
        pace = self.fps * count / len(self.frames)
        return Video(frames, pace, tuple(times[i] for i in chosen), self.duration)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of a frame."""
        return self.frames.size if isinstance(self.frames, FileFrames) else self.frames[0].size


Visual = Any  # a PIL image or a Video


def frames_of(visual: Visual) -> int:
    """Frames of a video; 0 for an image."""
    return len(visual.frames) if isinstance(visual, Video) else 0


def shown_by(layout: Layout, visual: Visual) -> Visual:
    """A video's frames that the layout shows; an image as it is."""
    if not isinstance(visual, Video):
        return visual
    return visual.sample(layout.shown_frames, layout.sampling)


def sampled(total: int, count: int, how: Sampling, fps: float) -> list[int]:
    """Indices of `count` of `total` frames, ascending.

    Args:
        total: frames there are, no fewer than `count`.
        count: frames to choose.
        how: see `Sampling`.
        fps: frames that show a second.
    """
    steps = range(count)
    if how == "ends":
        return np.linspace(0, total - 1, count).round().astype(int).tolist()
    if how == "starts":
        return [i * total // count for i in steps]
    if how == "after":
        return [min(total - 1, -(-i * total // count)) for i in steps]
    if how == "middles":
        return [(2 * i + 1) * total // (2 * count) for i in steps]
    first, last = 0, total - 1
    if total / fps - 2 > count:  # a second at both ends of what is long (SmolVLMVideoProcessor)
        first, last = int(fps), min(int(total - fps), total - 1)
    return np.linspace(first, last, count, dtype=int).tolist()


def told(text: str, video: Video, layout: Layout) -> str:
    """The text with a sampled video's times in the places of its marks, such as "{seconds}".

    Raises:
        LuvcError: there are more marks than steps.
    """
    times, span = video.times, layout.frames // layout.tiles
    steps = ((times[i], times[i + span - 1]) for i in range(0, layout.frames, span))

    def said(mark: re.Match) -> str:
        if mark[1] == DURATION:
            return str(timedelta(seconds=int(video.duration)))
        step = next(steps, None)
        if step is None:
            raise LuvcError(
                f"layout {layout.name} tells more than {layout.tiles} times of a video: export again"
            )
        return TIMES[mark[1]](step)

    return MARKS.sub(said, text)


def open_visual(part: Mapping, megapixels: float = MEGAPIXELS) -> Visual:
    """The image or video of a content part.

    Raises:
        LuvcError: nothing to show in it, not readable, or larger than the bounds.
    """
    if part["type"] == "video":
        return open_video(part.get("video"), part.get("fps"), megapixels)
    source = image_source(part)
    if source is None:
        raise LuvcError(
            "an image part needs 'image' (a path, data: URL, bytes, array or PIL image) or 'image_url'"
        )
    return open_image(source, megapixels)


def open_video(source: Any, fps: float | None = None, megapixels: float = MEGAPIXELS) -> Video:
    """A video from its frames, or from a file.

    Args:
        source: a list of frames (as `open_image` takes them), a folder of pictures in the order of their
            names, an animated picture file (GIF, WebP, PNG), or any other file that PyAV decodes.
        fps: frames that show a second, 1 where it is not given; a file that PyAV decodes has its own.
        megapixels: most of a frame; all together may have `VIDEO_PICTURES` times as many.

    Raises:
        LuvcError: none of these, no frames, frames of several sizes, or larger than the bounds.
    """
    if fps is not None and (
        isinstance(fps, bool)
        or not isinstance(fps, (int, float))
        or not LEAST_FPS <= fps < math.inf
    ):
        raise LuvcError(
            f"the fps of a video must be a number above 0, a frame a day at least, got {shown(fps)}"
        )
    at_path = isinstance(source, (str, os.PathLike))
    frames = _frames_at(Path(source), megapixels) if at_path else source
    if isinstance(frames, FileFrames):
        return _of_file(frames, fps)
    if isinstance(frames, bytes) or not isinstance(frames, (Sequence, np.ndarray)):
        raise LuvcError(
            "a video is the list of its frames (paths, arrays or PIL images), a folder of pictures or a "
            f"file of a video, got {type(source).__name__}"
        )
    opened: list[Any] = []
    for frame in frames:
        opened.append(open_image(frame, megapixels))
        _check_frames(len(frames), opened[0].size, megapixels)
    if not opened or len({frame.size for frame in opened}) > 1:
        raise LuvcError(
            f"a video needs frames of one size, {shown(source)} has none or several sizes"
        )
    return Video(tuple(opened), float(FPS if fps is None else fps))


def _of_file(frames: FileFrames, fps: float | None) -> Video:
    if fps is not None and fps != frames.fps:
        raise LuvcError(
            f"video {brief_path(frames.path)} has {frames.fps:.5g} frames a second of its own, fps "
            f"{fps:g} says otherwise: leave fps out"
        )
    if frames.fps < LEAST_FPS:
        raise LuvcError(
            f"video {brief_path(frames.path)} shows {frames.fps:.3g} frames a second, the least is a frame a "
            "day: give a folder of its frames, and their fps"
        )
    return Video(frames, frames.fps)


def _check_frames(count: int, size: tuple[int, int], megapixels: float) -> None:
    most = VIDEO_PICTURES * megapixels
    if count * size[0] * size[1] > most * 1e6:
        raise LuvcError(
            f"the video has {count} frames of {size[0]}x{size[1]} pixels, the limit is {most:g} megapixels "
            "together; take fewer frames or scale them down first"
        )


def _frames_at(path: Path, megapixels: float) -> Any:
    """Frames of a folder, of an animated picture or of a file of another kind."""
    from PIL import Image, ImageSequence, UnidentifiedImageError

    try:
        if path.is_dir():
            known = Image.registered_extensions()
            return sorted(p for p in path.iterdir() if p.suffix.lower() in known)
        with Image.open(path) as animation:
            if animation.format == "MPEG":  # which Pillow knows by name alone
                return FileFrames.open(path, megapixels)
            _check_frames(getattr(animation, "n_frames", 1), animation.size, megapixels)
            frames = ImageSequence.Iterator(animation)
            return [open_image(frame, megapixels) for frame in frames]
    except LuvcError:
        raise
    except UnidentifiedImageError:
        return FileFrames.open(path, megapixels)
    except Exception as e:  # decoders raise what they like
        raise LuvcError(
            f"video {brief_path(path)} cannot be read ({reason_of(e)}): give a folder of frames or an "
            "animated picture"
        ) from e
