"""Files of videos, decoded by PyAV: how many frames there are, and those that a layout shows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import LuvcError
from .pictures import as_rgb, brief_path, check_size, reason_of

MOST_FRAMES = 200_000
"""Of a file: some two hours."""
SAME = 0.05
"""Part of a frame rate by which the frames' own times may differ from what the file says."""
ALONE = {"protocol_whitelist": "none"}
"""Playlists and the like may open nothing else."""


@dataclass(frozen=True)
class FileFrames:
    """The frames of a file, which stays closed until some of them are picked.

    Attributes:
        path: of the file.
        count: frames it decodes to; headers may say another number.
        fps: of them that show a second, in the mean.
        size: (width, height) of a frame, upright.
        megapixels: most of a frame.
    """

    path: Path
    count: int
    fps: float
    size: tuple[int, int]
    megapixels: float

    def __len__(self) -> int:
        return self.count

    @classmethod
    def open(cls, path: Path, megapixels: float) -> "FileFrames":
        """The frames of a file, counted.

        Raises:
            LuvcError: PyAV is missing or cannot decode it, or it is larger than the bounds.
        """
        first = last = None
        count = 0
        with _decoded(path) as (fps, frames):
            for frame in frames:
                check_size((frame.width, frame.height), megapixels)
                first, last = first or frame, frame
                count += 1
                if count > MOST_FRAMES:
                    raise LuvcError(
                        f"video {brief_path(path)} has more than {MOST_FRAMES} frames: cut a part out"
                    )
            pace = _pace(fps, count, first, last)
            if first is None or pace is None:
                what = "no frames" if first is None else "no frame rate"
                raise LuvcError(f"video {brief_path(path)} has {what}: give a folder of its frames")
            return cls(path, count, pace, _upright(first).size, megapixels)

    def pick(self, chosen: Sequence[int]) -> tuple[Any, ...]:
        """The frames of these ascending indices as PIL images.

        Raises:
            LuvcError: the file is another one by now, or its frames are of several sizes.
        """
        wanted, found = set(chosen), {}
        with _decoded(self.path) as (_, frames):
            for i, frame in enumerate(frames):
                if i in wanted:
                    found[i] = _upright(frame)
                if i >= chosen[-1]:
                    break
        if wanted - found.keys() or {frame.size for frame in found.values()} != {self.size}:
            raise LuvcError(
                f"video {brief_path(self.path)} changes its size, or has changed since it was opened: give "
                "a folder of its frames"
            )
        return tuple(found[i] for i in chosen)


def _pace(told: Any, count: int, first: Any, last: Any) -> float | None:
    """Frames a second: as the file says, unless its frames' own times say something else.

    Headers of Matroska and AVI hold a rate that frames of uneven times need not keep.
    """
    said = float(told) if told else None
    if count < 2 or first.time is None or last.time is None or last.time <= first.time:
        return said
    seen = (count - 1) / (last.time - first.time)
    return said if said is not None and abs(seen - said) <= SAME * said else seen


@contextmanager
def _decoded(path: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Frames a second (None where the file does not say), and all frames one by one."""
    try:
        import av
        from av.error import FFmpegError
    except ImportError as e:
        raise LuvcError(
            f"video {brief_path(path)} is neither a folder of frames nor an animated picture; for other "
            "files: pip install 'luvc-export[video]'"
        ) from e
    try:
        with open(path, "rb") as file, av.open(file, "r", options=ALONE) as container:
            if not container.streams.video:
                raise LuvcError(f"{brief_path(path)} holds no video: give a folder of frames")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield stream.average_rate, container.decode(stream)
    except (OSError, ValueError, FFmpegError) as e:
        if isinstance(e, LuvcError):
            raise
        raise LuvcError(
            f"video {brief_path(path)} cannot be read ({reason_of(e)}): give a folder of frames"
        ) from e


def _upright(frame: Any) -> Any:
    """A decoded frame as a PIL image in RGB, turned as the file says."""
    image = as_rgb(frame.to_image())
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image
