"""Which parts of a picture each stage keeps, drawn over the picture (luvc-run --show-tokens).

Letters: V visual tokens, h rows and w columns of a tile's vision grid.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..engines.bundle.layout import Layout
from ..engines.bundle.schedule import Axis
from ..errors import LuvcError
from ..exporter.planning.grid import merge_spans, merged_length
from ..files import whole

INK, LINE = "#1e293b", (255, 255, 255)
FADE = 0.82
"""How far what is gone is blended into white."""
SIDE = 560
"""Longer side of a drawn picture, pixels."""


@dataclass(frozen=True)
class Cell:
    """A visual token's part of its picture: left, top, right, bottom, 0 .. 1."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class View:
    """A picture as the model gets it: its tiles together, or its thumbnail.

    Attributes:
        image: which picture.
        name: for the title.
        cells: where each token lies, by its ordinal among all V.
    """

    image: int
    name: str
    cells: dict[int, Cell]


def edges(layout: Layout, axis: Axis) -> list[float]:
    """Borders of the visual tokens of a tile along an axis, 0 .. 1.

    Fixed merges are followed one by one. With `match` each row merges other neighbours, and tokens of a
    smaller grid overlap: they are drawn equally wide.

    Raises:
        LuvcError: the tokens of this layout are not a plain grid for each tile.
    """
    which = 1 if axis == "width" else 0
    before, after = layout.grid[which], layout.merged_grid[which]
    block = _block(layout)
    spans = [(i, i) for i in range(before)]
    for merge in layout.schedule.lasting:
        if merge.axis == axis:
            spans = merge_spans(spans, merge.group, merged_length(len(spans), merge.group, block))
    borders = [0.0, *((last + 1) / before for _, last in spans)]
    if layout.schedule.exit or (layout.schedule.match and layout.schedule.lasting):
        borders = [i / after for i in range(after + 1)]
    return borders[::block]


def _block(layout: Layout) -> int:
    """Rows (and columns) of grid tokens that the projector joins to one visual token."""
    h, w = layout.merged_grid
    block = math.isqrt(h * w * layout.tiles // layout.tokens_per_image)
    plain = block and block * block * layout.tokens_per_image == h * w * layout.tiles
    if layout.frames or not plain or h % block or w % block:
        raise LuvcError(
            "--show-tokens draws pictures whose tokens are a plain grid for each tile; this layout packs "
            "them otherwise"
        )
    return block


def arrangement(layout: Layout, size: tuple[int, int]) -> tuple[int, int, bool]:
    """Columns and rows of the tiles of a picture (width, height), and whether a thumbnail follows.

    The processor's own rule for as many tiles as the layout has.

    Raises:
        LuvcError: a family whose tiles stand otherwise.
    """
    options = layout.processor_options
    if layout.tiles == 1:
        return 1, 1, False
    if not options.get("crop_to_patches"):
        raise LuvcError("--show-tokens knows only InternVL's tiles; export with one tile a picture")
    from transformers.models.got_ocr2 import image_processing_pil_got_ocr2 as rule

    limits = (int(str(options[f"{which}_patches"])) for which in ("min", "max"))
    columns, rows = rule.get_optimal_tiled_canvas(
        (size[1], size[0]), (layout.pixel_shape[-2], layout.pixel_shape[-1]), *limits
    )
    return columns, rows, layout.tiles == columns * rows + 1


def views(layout: Layout, sizes: Sequence[tuple[int, int]]) -> list[View]:
    """Where every visual token of a prompt lies.

    Args:
        layout: of the prompt.
        sizes: (width, height) of its pictures.
    """
    xs, ys = edges(layout, "width"), edges(layout, "height")
    found: list[View] = []
    ordinal = 0
    for number, size in enumerate(sizes):
        columns, rows, thumbnail = arrangement(layout, size)
        parts: list[View] = [View(number, "", {})]
        for tile in range(layout.tiles):
            whole = tile == columns * rows
            view = View(number, "thumbnail", {}) if whole else parts[0]
            column, row = (0, 0) if whole else (tile % columns, tile // columns)
            wide, high = (1, 1) if whole else (columns, rows)
            for y in range(len(ys) - 1):
                for x in range(len(xs) - 1):
                    view.cells[ordinal] = Cell(
                        (column + xs[x]) / wide,
                        (row + ys[y]) / high,
                        (column + xs[x + 1]) / wide,
                        (row + ys[y + 1]) / high,
                    )
                    ordinal += 1
            if whole:
                parts.append(view)
        assert thumbnail == (len(parts) == 2)
        found += parts
    return found


def survivors(layout: Layout, kept: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Ordinals among all V that are left from each pruned layer on.

    Args:
        layout: of the prompt.
        kept: by scored layer, int64 [k], ordinals among those that entered the stage.
    """
    alive, found = np.arange(layout.visual_tokens), {}
    for prune in layout.schedule.language:
        alive = alive[kept[prune.layer]] if prune.keep else alive[:0]
        found[prune.layer] = alive
    return found


def paint(image: Any, view: View, alive: np.ndarray) -> np.ndarray:
    """A picture with the parts of the tokens that are gone faded, uint8 [height, width, 3].

    Args:
        image: PIL image, RGB.
        view: where the tokens lie.
        alive: ordinals that are left.
    """
    scale = SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    clear = np.asarray(image.resize((width, height))).astype(float)
    grey = clear.mean(2, keepdims=True)
    faded = (1 - FADE) * (0.5 * clear + 0.5 * grey) + FADE * 255
    out, left = faded.copy(), set(alive.tolist())
    for ordinal, cell in view.cells.items():
        x0, x1 = round(cell.left * width), round(cell.right * width)
        y0, y1 = round(cell.top * height), round(cell.bottom * height)
        if ordinal in left:
            out[y0:y1, x0:x1] = clear[y0:y1, x0:x1]
        for line in (out[y0 : y0 + 1, x0:x1], out[y0:y1, x0 : x0 + 1]):
            line[:] = 0.45 * line + 0.55 * np.array(LINE, float)
    return out.round().astype(np.uint8)


def draw(images: Sequence[Any], layout: Layout, kept: dict[int, np.ndarray], path: Path) -> None:
    """Draw every stage over every picture, one row a picture, one column a stage.

    Args:
        images: PIL images of the prompt, in order.
        layout: of the prompt.
        kept: see `survivors`.
        path: picture file to write.

    Raises:
        LuvcError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        import matplotlib
    except ImportError as e:
        raise LuvcError("--show-tokens needs matplotlib: pip install matplotlib") from e
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = views(layout, [image.size for image in images])
    stages = survivors(layout, kept)
    columns = {0: np.arange(layout.visual_tokens)} | stages
    shape = max(image.size[1] / image.size[0] for image in images)
    figure, panels = pyplot.subplots(
        len(rows),
        len(columns),
        figsize=(3.0 * len(columns), (3.0 * shape + 0.45) * len(rows)),
        squeeze=False,
        layout="constrained",
    )
    for line, view in zip(panels, rows, strict=True):
        for axes, (layer, alive) in zip(line, columns.items(), strict=True):
            axes.imshow(paint(images[view.image], view, alive), interpolation="none")
            axes.set_axis_off()
            count = len(set(alive.tolist()) & view.cells.keys())
            title = f"before layer {layer}: {count} of {len(view.cells)}"
            if axes is line[0]:
                name = view.name or (
                    "the picture" if len(images) == 1 else f"picture {view.image + 1}"
                )
                title = f"{name}: {count} visual tokens enter"
            axes.set_title(title, fontsize=10, color=INK, loc="left")
    figure.suptitle(_caption(layout, stages), fontsize=11, color=INK, x=0.005, ha="left")
    try:
        _save(figure, path)
    finally:
        pyplot.close(figure)


def _save(figure: Any, path: Path) -> None:
    try:
        with whole(path) as draft:
            figure.savefig(draft, format=path.suffix[1:] or "png", facecolor="white", dpi=150)
    except LuvcError:
        raise
    except (OSError, ValueError) as e:  # matplotlib knows no such format
        raise LuvcError(f"--show-tokens {path} cannot be written: {e}") from e


def _caption(layout: Layout, stages: dict[int, np.ndarray]) -> str:
    counts = " → ".join(str(len(alive)) for alive in stages.values())
    text = f"{layout.baseline_visual_tokens} visual tokens at ratio 1"
    text += f", {layout.visual_tokens} after OIM" if layout.schedule.lasting else ""
    text += f", {layout.visual_tokens} after {exit.how}" if (exit := layout.schedule.exit) else ""
    text += f", then {counts}" if counts else "; nothing is pruned"
    if layout.schedule.match and layout.schedule.lasting:
        text += " (OIM merges the most similar neighbours: cells are drawn equally wide)"
    return text
