"""Which part of a picture each visual token sees, and which tokens every SPU stage kept.

A cell is what one visual token stands for: the patches that OIM averaged into it and the block that
the projector shuffled into one token. Attention lets every token see more than its cell.
Letters: V visual tokens, k kept.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...engines import VLM
from ...engines.bundle.layout import Layout
from ..token_map import survivors, views

Box = tuple[float, float, float, float]  # x, y, width, height in pixels of the picture
SHOWN = 640  # pixels of the longer side in the report


@dataclass(frozen=True)
class Look:
    """What the layers from `layer` on still see of a picture."""

    layer: int
    kept: int
    of: int
    gone: tuple[Box, ...]


@dataclass(frozen=True)
class Sample:
    """A picture as data URI with its size, the cells of all tokens, and the looks of each stage."""

    title: str
    uri: str
    width: int
    height: int
    cells: tuple[Box, ...]
    looks: tuple[Look, ...]
    thumbnail: bool


def samples(vlm: VLM, layout: Layout, pictures: Sequence[tuple[str, Any]]) -> list[Sample]:
    """Run each picture through vision and prefill and see what was kept.

    Args:
        vlm: the bundle on a backend.
        layout: the layout to run.
        pictures: titles and PIL images; fitted to the layout's size, and repeated where the layout
            takes several images.

    Raises:
        LuvcError: the layout's tokens are no plain grid of a picture.
    """
    from PIL import ImageOps

    found = []
    for title, picture in pictures:
        height, width = layout.image_size
        fitted = ImageOps.fit(picture.convert("RGB"), (width, height))
        parts = [{"type": "image", "image": fitted}] * layout.images
        content = [*parts, {"type": "text", "text": "Describe the picture."}]
        prompt = vlm.processor.prompt([{"role": "user", "content": content}], layout.name)
        _, result, _ = vlm.prefill([prompt])
        kept = {layer: stage.kept[0] for layer, stage in result.stages.items()}
        found.append(_sample(title, fitted, layout, kept))
    return found


def _sample(title: str, picture: Any, layout: Layout, kept: dict[int, Any]) -> Sample:
    scale = min(1.0, SHOWN / max(picture.size))
    width, height = (round(n * scale) for n in picture.size)
    view, *others = views(layout, [picture.size])
    cells = {
        n: (c.left * width, c.top * height, (c.right - c.left) * width, (c.bottom - c.top) * height)
        for n, c in view.cells.items()
    }
    looks = []
    for layer, alive in survivors(layout, kept).items():
        if len(alive):
            left = set(alive.tolist())
            gone = tuple(box for n, box in cells.items() if n not in left)
            looks.append(Look(layer, len(alive), layout.visual_tokens, gone))
    uri = _data_uri(picture.resize((width, height)))
    return Sample(title, uri, width, height, tuple(cells.values()), tuple(looks), bool(others))


def _data_uri(picture: Any) -> str:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
