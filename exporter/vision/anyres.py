"""How LLaVA-NeXT and LLaVA-OneVision pack the tiles of an image into one sequence without padding.

Packing is static here: one image size fixes which rows and columns are padding, where lines end and how
far the features are shrunk. Letters: adapter.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...engines.bundle.schedule import Merge, Reduction
from ...errors import LuvcError
from ..planning.grid import Grid, merge_grid, merge_spans


@dataclass(frozen=True)
class Packing:
    """How the tiles' features become one sequence.

    Attributes:
        rows, columns: of tiles.
        grid: tokens of a tile after OIM, or the smaller grid of them.
        top, bottom, left, right: what unpadding keeps of the joined tiles.
        target: (rows, columns) to shrink to, or None.
    """

    rows: int
    columns: int
    grid: Grid
    top: int
    bottom: int
    left: int
    right: int
    target: tuple[int, int] | None

    @property
    def tokens(self) -> int:
        """n: the whole picture, the tiles, one line end for each row."""
        h, w = self.target or (self.bottom - self.top, self.right - self.left)
        return self.grid.tokens + h * (w + 1)


def packing(
    config: Any,
    size: tuple[int, int],
    grid: Grid,
    merges: Sequence[Merge],
    exit: Reduction | None = None,
) -> Packing:
    """The packing of an image of `size` = (height, width), as Hugging Face's `pack_image_features`.

    What is padding is found on the grid before OIM; a merged row or column stays if any of it stays. A
    smaller grid is packed as if it were the tower's own.

    Raises:
        LuvcError: a smaller grid of tiles that are partly padding, or shrunk by the model itself.
    """
    rows, columns, kept = _unpadded(config, size, grid)
    if exit:
        whole = kept.shape == (rows * grid.h, columns * grid.w)
        if not whole or _target(config, kept.shape, grid, grid):
            what = "shrinks" if whole else "cuts padding off"
            raise LuvcError(_unpackable(config, size, exit, what))
        smaller = Grid(exit.rows, exit.columns)
        return Packing(rows, columns, smaller, 0, rows * exit.rows, 0, columns * exit.columns, None)
    first = divmod(int(kept[0, 0]), columns * grid.w)
    last = divmod(int(kept[-1, -1]), columns * grid.w)
    merged, bounds = grid, []
    for axis, length, tiles, a, b in (
        ("height", grid.h, rows, first[0], last[0]),
        ("width", grid.w, columns, first[1], last[1]),
    ):
        spans = [(i, i) for i in range(length)]
        for merge in (m for m in merges if m.axis == axis):
            merged = merge_grid(merged, merge, Grid(1, 1))
            spans = merge_spans(spans, merge.group, merged.length(merge.axis))
        places = [(t * length + x, t * length + y) for t in range(tiles) for x, y in spans]
        inside = [i for i, (x, y) in enumerate(places) if x <= b and y >= a]
        bounds.append((inside[0], inside[-1] + 1))
    (top, bottom), (left, right) = bounds
    target = _target(config, kept.shape, grid, merged)
    return Packing(rows, columns, merged, top, bottom, left, right, target)


def _unpadded(config: Any, size: tuple[int, int], grid: Grid) -> tuple[int, int, torch.Tensor]:
    """Rows and columns of tiles, and which of all their tokens are no padding, [rows kept, columns kept]."""
    from transformers.models.llava_next.modeling_llava_next import (
        get_anyres_image_grid_shape,
        unpad_image,
    )

    side = config.vision_config.image_size
    rows, columns = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, side)
    probe = torch.zeros(1, rows * grid.h, columns * grid.w)
    probe[0] = torch.arange(probe.numel()).view(rows * grid.h, columns * grid.w)
    return rows, columns, unpad_image(probe, size)[0].long()


def _unpackable(config: Any, size: tuple[int, int], exit: Reduction, what: str) -> str:
    """Only whole tiles: in a smaller grid padding would be averaged into what it stands beside."""
    filled = ", ".join(f"{h}x{w}" for h, w in config.image_grid_pinpoints[:4])
    return (
        f"{config.model_type} {what} the tiles of {size[0]}x{size[1]} pictures, in the middle of the tokens "
        f"of a smaller grid ({exit.how}): give an --image-size that fills its tiles, such as {filled}, or "
        "another --method"
    )


def _target(config: Any, kept: Sequence[int], grid: Grid, merged: Grid) -> tuple[int, int] | None:
    """LLaVA-OneVision shrinks what is more than its limit of tiles; OIM's share is taken off."""
    limit = getattr(config, "vision_aspect_ratio", None)
    if limit is None:
        return None
    ratio = math.sqrt(kept[0] * kept[1] / (int(limit.removeprefix("anyres_max_")) * grid.h**2))
    if ratio <= 1.1:
        return None
    h, w = int(kept[0] // ratio), int(kept[1] // ratio)
    return max(1, round(h * merged.h / grid.h)), max(1, round(w * merged.w / grid.w))
