"""Hugging Face's own answer for a checkpoint: nothing of this project takes part.

python -m tests.families.reference CHECKPOINT --text "..." --image a.png ... [--video frames.npy]
"""

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .processors import processor

FPS = 2.0


@dataclass(frozen=True)
class Features:
    """What a vision tower hands to the language model.

    Attributes:
        tokens: visual tokens of all images in order, [n, D]; packed where the family packs.
        taps: DeepStack features of the same tokens, each [n, D].
    """

    tokens: torch.Tensor
    taps: tuple[torch.Tensor, ...] = ()


def load(folder: Path) -> tuple[Any, Any]:
    """The model (float32, eager attention) and the processor of a checkpoint."""
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    return model, processor(folder)


def prompt(proc: Any, text: str, images: int = 0, videos: int = 0) -> str:
    """The rendered question, one placeholder an image; PaliGemma has no template."""
    if not proc.tokenizer.chat_template:
        return proc.image_token * images + text
    parts = [{"type": "image"}] * images + [{"type": "video"}] * videos
    content = [*parts, {"type": "text", "text": text}]
    return proc.tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )


def inputs(
    proc: Any,
    text: str,
    images: Sequence[Any] = (),
    video: Any = None,
    fps: float = FPS,
    sampling: dict[str, Any] | None = None,
) -> Any:
    """Model inputs of one question, made as the processor's `apply_chat_template` makes them.

    Args:
        proc: a processor.
        text: the question.
        images: PIL images.
        video: frames [F, H, W, 3] uint8.
        fps: of them that show a second.
        sampling: what the processor is told of which frames to take; None takes them as they are.
    """
    rendered = prompt(proc, text, len(images), int(video is not None))
    bos = proc.tokenizer.bos_token
    options: dict[str, Any] = {"return_tensors": "pt"}
    if bos and rendered.startswith(bos):  # a template that writes it itself
        options["add_special_tokens"] = False
    if images:
        options["images"] = [
            list(images)
        ]  # one conversation: LLaVA-OneVision tiles a single image only
    if video is not None:
        frames = np.ascontiguousarray(np.moveaxis(np.asarray(video), -1, 1))
        metadata = {"total_num_frames": len(frames), "fps": fps, "duration": len(frames) / fps}
        metadata["frames_indices"] = list(range(len(frames)))
        options |= {"videos": [torch.from_numpy(frames)], "video_metadata": [metadata]}
        options |= {"do_sample_frames": sampling is not None, **(sampling or {})}
    return proc(text=[rendered], **options)


@torch.no_grad()
def features(model: Any, given: Any) -> Features:
    """Visual tokens by Hugging Face's `get_image_features`, or `get_video_features`.

    Args:
        model: from `load`.
        given: from `inputs`.
    """
    video = "pixel_values_videos" in given
    find = model.model.get_video_features if video else model.model.get_image_features
    names = set(inspect.signature(find).parameters) & set(given)
    found = find(**{name: given[name] for name in names})
    taps = getattr(found, "deepstack_features", None) or ()
    return Features(flat(found.pooler_output), tuple(flat(t) for t in taps))


def flat(rows: Any) -> torch.Tensor:
    """Features per image or per tile as one [n, D]."""
    if isinstance(rows, (list, tuple)):
        return torch.cat([flat(r) for r in rows])
    return rows.reshape(-1, rows.shape[-1])


@torch.no_grad()
def generate(
    model: Any, proc: Any, images: Any, text: str, n: int = 8, *, video: Any = None
) -> list[int]:
    """Greedy ids of Hugging Face's `generate`; ends early at an end token, which is included.

    Args:
        model: from `load`.
        proc: from `load`.
        images: one PIL image, or several.
        text: the question.
        n: most new tokens.
        video: frames, see `inputs`.
    """
    images = images if isinstance(images, (list, tuple)) else [images]
    given = inputs(proc, text, images, video)
    given.pop("labels", None)  # PaliGemma's, for training
    out = model.generate(**given, max_new_tokens=n, do_sample=False)
    return out[0, given["input_ids"].shape[1] :].tolist()


def answer(folder: Path, text: str, images: Sequence[Path] = (), video: Path | None = None) -> dict:
    """Ids, features and answer of a question as JSON, for a process of its own."""
    from PIL import Image

    model, proc = load(folder)
    opened = [Image.open(path).convert("RGB") for path in images]
    frames = np.load(video) if video else None
    given = inputs(proc, text, opened, frames)
    result = {
        "input_ids": given["input_ids"][0].tolist(),
        "shapes": {k: list(v.shape) for k, v in given.items() if hasattr(v, "shape")},
        "generated": generate(model, proc, opened, text, video=frames),
    }
    if opened:
        result["features"] = features(model, given).tokens.tolist()
    return result


def main() -> None:
    """Print `answer` as the last line."""
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", default="What is this?")
    parser.add_argument("--image", type=Path, action="append", default=[])
    parser.add_argument("--video", type=Path)
    given = parser.parse_args()
    print(json.dumps(answer(given.folder, given.text, given.image, given.video)))


if __name__ == "__main__":
    main()
