"""Inputs made here and by `AutoProcessor.apply_chat_template`, side by side; needs torchvision.

python -m tests.families.auto_processor CHECKPOINT ...
"""

import sys
from pathlib import Path

import numpy as np

from . import reference
from .processors import processor, without_extras


def pictures() -> list:
    """Two images of different shape."""
    from PIL import Image

    random = np.random.default_rng(0)
    shapes = ((120, 180, 3), (200, 120, 3))
    return [Image.fromarray(random.integers(0, 256, s, dtype=np.uint8)) for s in shapes]


def by_auto_processor(folder: Path, text: str, images: list) -> dict:
    """Inputs as the model cards show it."""
    from transformers import AutoProcessor

    with without_extras():
        proc = AutoProcessor.from_pretrained(folder)
    if not proc.tokenizer.chat_template:
        prompt = proc.image_token * len(images) + text
        return proc(text=prompt, images=[images], return_tensors="pt")
    parts = [*({"type": "image", "image": i} for i in images), {"type": "text", "text": text}]
    return proc.apply_chat_template(
        [{"role": "user", "content": parts}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def main() -> None:
    """Compare every checkpoint with one and with two images."""
    for folder in map(Path, sys.argv[1:]):
        for images in (pictures()[:1], pictures()):
            ours = reference.inputs(processor(folder), "What is this?", images)
            auto = by_auto_processor(folder, "What is this?", images)
            assert set(ours) == set(auto), (folder, set(ours) ^ set(auto))
            for key in set(ours) - {"pixel_values"}:  # Pillow and torchvision resize differently
                assert (ours[key] == auto[key]).all(), (folder, key)
            assert ours["pixel_values"].shape == auto["pixel_values"].shape, folder
        print(f"{folder.name}: same")


if __name__ == "__main__":
    main()
