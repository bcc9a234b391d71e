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

import numpy as np

from ...engines import VLM
from ...engines.manifest import Layout, Merge
from ...exporter.grid import Grid, merged_length

Span = tuple[float, float]
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


def spans(length: int, merges: Sequence[Merge], multiple: int, block: int) -> list[Span]:
    """Where along an axis of 0..1 each visual token stands.

    Args:
        length: vision tokens before merging.
        merges: OIM steps along this axis.
        multiple: lengths the projector needs.
        block: neighbouring vision tokens that become one visual token.
    """
    cells: list[Span] = [(i / length, (i + 1) / length) for i in range(length)]
    for merge in merges:
        n, g = len(cells), merge.group
        groups = n - merged_length(n, g, multiple)
        merged: list[Span] = []
        for i in range(groups):
            *alone, first, last = cells[i * g : (i + 1) * g]
            merged += [*alone, (first[0], last[1])]
        cells = merged + cells[groups * g :]
    return [(cells[i][0], cells[i + block - 1][1]) for i in range(0, len(cells), block)]


def tile_cells(layout: Layout, multiple: Grid) -> list[Box]:
    """Cells of one tile's visual tokens in raster order, in shares of the tile."""
    block = round((layout.merged_grid[0] * layout.merged_grid[1] / layout.tokens_per_tile) ** 0.5)
    merges = layout.schedule.vision
    if layout.schedule.match:  # chosen by content: only the number of cells is known
        rows, columns = (
            spans(n, (), 1, 1)
            for n in (layout.merged_grid[0] // block, layout.merged_grid[1] // block)
        )
    else:
        rows, columns = (
            spans(
                Grid(*layout.grid).length(axis),
                [m for m in merges if m.axis == axis],
                multiple.length(axis),
                block,
            )
            for axis in ("height", "width")
        )
    return [(x, y, x2 - x, y2 - y) for y, y2 in rows for x, x2 in columns]


def picture_cells(layout: Layout, multiple: Grid, width: int, height: int) -> list[Box | None]:
    """Cells of an image's visual tokens in pixels; None for those of the thumbnail."""
    rows, columns = (a // b for a, b in zip(layout.image_size, layout.tile_size, strict=True))
    w, h = width / columns, height / rows
    cells: list[Box | None] = []
    for row in range(rows):
        for column in range(columns):
            for x, y, dx, dy in tile_cells(layout, multiple):
                cells.append(((column + x) * w, (row + y) * h, dx * w, dy * h))
    thumbnails = layout.tiles - rows * columns
    return cells + [None] * (thumbnails * layout.tokens_per_tile)


def samples(
    vlm: VLM, layout: Layout, multiple: Grid, pictures: Sequence[tuple[str, Any]]
) -> list[Sample]:
    """Run each picture through vision and prefill and see what was kept.

    Args:
        vlm: the bundle on a backend.
        layout: the layout to run.
        multiple: of the projector.
        pictures: titles and PIL images; fitted to the layout's size, and repeated where the layout
            takes several images.
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
        found.append(_sample(title, fitted, layout, multiple, kept))
    return found


def _sample(
    title: str, picture: Any, layout: Layout, multiple: Grid, kept: dict[int, Any]
) -> Sample:
    scale = min(1.0, SHOWN / max(picture.size))
    width, height = (round(n * scale) for n in picture.size)
    cells = picture_cells(layout, multiple, width, height)
    looks = []
    alive = np.arange(layout.visual_tokens)
    for prune in layout.schedule.language:
        if not prune.keep:
            continue
        alive = alive[kept[prune.layer]]  # ordinals of the stage -> ordinals of the prompt
        first = set(alive[alive < len(cells)].tolist())  # of the first image
        gone = tuple(c for i, c in enumerate(cells) if c is not None and i not in first)
        looks.append(Look(prune.layer, prune.keep, layout.visual_tokens, gone))
    shown = tuple(c for c in cells if c is not None)
    uri = _data_uri(picture.resize((width, height)))
    return Sample(title, uri, width, height, shown, tuple(looks), len(shown) < len(cells))


def _data_uri(picture: Any) -> str:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
