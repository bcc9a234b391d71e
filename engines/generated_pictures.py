"""Generated pictures and prompts about them, for validation and timing."""

from typing import Any

import numpy as np

from .bundle.layout import Layout
from .prompt.processing import Processor, Prompt


def generated_prompt(
    processor: Processor, layout: Layout, question: str = "", seed: int = 0
) -> Prompt:
    """A question, or none, about what `generated_parts` shows."""
    content = generated_parts(layout, seed)
    if question:
        content.append({"type": "text", "text": question})
    return processor.prompt([{"role": "user", "content": content}], layout.name)


def generated_parts(layout: Layout, seed: int = 0) -> list[dict[str, Any]]:
    """Content parts with as many generated pictures or videos as a layout holds."""
    parts: list[dict[str, Any]] = []
    for i in range(seed * layout.images, (seed + 1) * layout.images):
        frames = [
            generated_picture(layout.image_size, 100 * i + n) for n in range(layout.frames or 1)
        ]
        if layout.frames:
            parts.append({"type": "video", "video": frames, "fps": 2.0})
        else:
            parts.append({"type": "image", "image": frames[0]})
    return parts


def generated_picture(size: tuple[int, int], seed: int) -> np.ndarray:
    """A generated picture with smooth and sharp parts, uint8 [height, width, 3]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : size[0] * 1j, 0 : 1 : size[1] * 1j][..., None]
    phase, pace = random.uniform(0, 6, 3), random.uniform(3, 14, (2, 3))
    picture = 0.5 + 0.3 * np.sin(phase + pace[0] * x + pace[1] * y)
    for _ in range(6):
        top, left = random.uniform(0, 0.8, 2)
        height, width = random.uniform(0.05, 0.4, 2)
        inside = (y > top) & (y < top + height) & (x > left) & (x < left + width)
        picture = np.where(inside, random.uniform(0, 1, 3), picture)
    picture = picture + random.normal(0, 0.05, picture.shape)
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)
