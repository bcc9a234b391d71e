"""What Hugging Face's own processors make of videos, for all families that take them.

Their video processors need torchvision, so they run in a process of their own:
python -m tests.families.films CHECKPOINTS FILE
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import reference

TEXT, COUNT = "What happens?", 4


@dataclass(frozen=True)
class Family:
    """How a family is asked about a video.

    Attributes:
        size: (height, width) of a frame.
        total, fps: frames of a longer video, and how many of them show a second.
        count: frames taken of it.
        sampling: what its processor is told, so that it takes as many.
        lengths: frames of videos whose samples are compared too, and of how many are taken.
        paces: frames a second of those.
    """

    size: tuple[int, int]
    total: int = 11
    fps: float = 3.0
    count: int = COUNT
    sampling: dict[str, Any] = field(default_factory=lambda: {"num_frames": COUNT})
    lengths: tuple[tuple[int, int], ...] = ((4, 4), (5, 4), (7, 6), (30, 8), (97, 16), (1000, 64))
    paces: tuple[float, ...] = (1.5, 4.0, 25.0)


FAMILIES = {
    "qwen2_vl": Family((112, 168)),
    "qwen2_5_vl": Family((112, 168)),
    "qwen3_vl": Family((128, 192), sampling={"num_frames": COUNT, "fps": None}),
    "internvl": Family((168, 168)),
    "llava_onevision": Family((98, 98)),
    # of ten seconds it leaves out one at each end, of four none
    "smolvlm": Family((192, 192), 40, 4.0, sampling={"num_frames": COUNT, "fps": 1}),
    # they know rates alone: 4 frames of 2.75 s, and 6 a second
    "glm4v": Family((112, 140), 11, 4.0, sampling={"fps": COUNT / 2.75}),
    "glm_ocr": Family((112, 140), 12, 12.0, 6, {}, ((14, 12), (21, 18)), (7.0,)),
}


def film(size: tuple[int, int], count: int, seed: int = 0) -> np.ndarray:
    """Frames [count, height, width, 3] of a bright square on its way over noise."""
    random = np.random.default_rng(seed)
    frames = random.integers(0, 120, (count, *size, 3), dtype=np.uint8)
    for n in range(count):
        left = 10 + 20 * (n % 6)
        frames[n, 20:60, left : left + 40] = random.integers(120, 255, 3)
    return frames


def options(name: str, total: int, count: int, fps: float) -> dict[str, Any]:
    """What a processor is told so that it takes `count` frames of `total`."""
    if name == "glm_ocr":
        return {}
    if name == "glm4v":
        return {"fps": count * fps / total * (1 + 1e-9)}  # rounded down it would be one frame less
    return FAMILIES[name].sampling | {"num_frames": count}


def taken(name: str, proc: Any) -> dict[tuple[int, int, float], list[int]]:
    """Indices of the frames that a processor takes of videos of several lengths."""
    from transformers.video_utils import VideoMetadata

    found = {}
    for total, count in FAMILIES[name].lengths:
        for fps in FAMILIES[name].paces:
            metadata = VideoMetadata(total_num_frames=total, fps=fps, duration=total / fps)
            told = options(name, total, count, fps)
            chosen = [int(i) for i in proc.video_processor.sample_frames(metadata, **told)]
            found[total, count, fps] = chosen
    return found


def main() -> None:
    """Write inputs of a short and of a sampled video, and samples, by family."""
    from .processors import processor

    checkpoints, file = map(Path, sys.argv[1:])
    found: dict[str, Any] = {}
    for name, family in FAMILIES.items():
        proc = processor(checkpoints / name)
        long = film(family.size, family.total)
        found[name] = {
            "short": dict(reference.inputs(proc, TEXT, video=film(family.size, COUNT))),
            "long": dict(reference.inputs(proc, TEXT, (), long, family.fps, family.sampling)),
            "taken": taken(name, proc),
        }
    torch.save(found, file)


if __name__ == "__main__":
    main()
