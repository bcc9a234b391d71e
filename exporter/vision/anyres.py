"""LLaVA-NeXT and LLaVA-OneVision: the whole picture and its tiles, packed without padding.

Packing is static here: one image size fixes which rows and columns are padding, where lines end and how
far the features are shrunk. Letters: adapter.py; T tiles of an image, the whole picture first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from ...engines.bundle.manifest import Layout
from ...engines.bundle.schedule import Merge
from ...errors import LuvcError
from ..planning.grid import Grid, merge_grid, merge_spans
from .adapter import ImageGeometry, State
from .families.llava import LlavaAdapter
from .processor_files import blank_run


@dataclass(frozen=True)
class Packing:
    """How the tiles' features become one sequence.

    Attributes:
        rows, columns: of tiles.
        grid: tokens of a tile after OIM.
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


def packing(config: Any, size: tuple[int, int], grid: Grid, merges: Sequence[Merge]) -> Packing:
    """The packing of an image of `size` = (height, width), as Hugging Face's `pack_image_features`.

    What is padding is found on the grid before OIM; a merged row or column stays if any of it stays.
    """
    from transformers.models.llava_next.modeling_llava_next import (
        get_anyres_image_grid_shape,
        unpad_image,
    )

    side = config.vision_config.image_size
    rows, columns = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, side)
    probe = torch.zeros(1, rows * grid.h, columns * grid.w)
    probe[0] = torch.arange(probe.numel()).view(rows * grid.h, columns * grid.w)
    kept = unpad_image(probe, size)[0].long()
    first = divmod(int(kept[0, 0]), columns * grid.w)
    last = divmod(int(kept[-1, -1]), columns * grid.w)
    merged, bounds = grid, []
    for axis, length, tiles, a, b in (
        ("height", grid.h, rows, first[0], last[0]), ("width", grid.w, columns, first[1], last[1])
    ):  # fmt: skip
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


class AnyresAdapter(LlavaAdapter):
    """A graph entry is an image with all its tiles."""

    modules: ClassVar[tuple[str, ...]] = (*LlavaAdapter.modules, "model.image_newline")
    follows: ClassVar[bool] = True

    @classmethod
    def packs(cls, config: Any, images: int) -> bool:
        """Whether an image is cut into tiles."""
        return True

    @classmethod
    def geometry(
        cls, config: Any, processor: Any, size: tuple[int, int] | None, images: int, frames: int
    ) -> ImageGeometry:
        """Tiles of the best fitting resolution among the checkpoint's."""
        side, grid = cls.table(config)
        pinpoints = sorted((p[0] * p[1], p[0], p[1]) for p in config.image_grid_pinpoints)
        size = size or (pinpoints[0][1], pinpoints[0][2])
        if not cls.packs(config, images):
            return ImageGeometry(
                size, 1, (1, 1, 3, *side), grid, {}, True, images=images, frames=frames
            )
        found = blank_run(processor, size, {})["pixel_values"].shape
        plan = packing(config, size, grid, ())
        tiles = 1 + plan.rows * plan.columns
        if found[1:] != (tiles, 3, *side):
            raise LuvcError(
                f"the image processor makes {found[1:]} of {size[0]}x{size[1]}, the model packs "
                f"{(tiles, 3, *side)}: its image_grid_pinpoints differ from config.json's"
            )
        shape = (1, tiles, 3, *side)
        return ImageGeometry(
            size, tiles, shape, grid, {}, True, plan.rows, plan.columns, images, frames
        )

    @classmethod
    def tokens(cls, config: Any, geometry: ImageGeometry, merges: Sequence[Merge]) -> int:
        """The packed sequence; a picture that is not cut has one line end."""
        if cls.packs(config, geometry.images):
            return packing(config, geometry.size, geometry.grid, merges).tokens
        return super().tokens(config, geometry, merges) + 1

    def __init__(self, model, layout: Layout):
        super().__init__(model, layout)
        self.plan: Packing | None = None
        if layout.tiles > 1:
            grid, merges = Grid(*layout.grid), layout.schedule.vision
            self.plan = packing(self.model.config, layout.image_size, grid, merges)

    def embed(self, pixels: torch.Tensor, state: State) -> torch.Tensor:
        """All tiles of all images through the tower."""
        return super().embed(pixels.flatten(0, 1), state)

    def pack(self, x: torch.Tensor, grid: Grid) -> torch.Tensor:
        """[N * T, h * w, D] -> [N, n, D]."""
        x, plan = x.unflatten(0, (-1, self.layout.tiles)), self.plan
        base, tiles = x[:, 0], x[:, 1:]
        newline = self.parts.model.image_newline.to(x.dtype)
        if plan is None:
            return torch.cat([base, newline.expand(x.shape[0], 1, -1)], 1)
        tiles = tiles.unflatten(1, (plan.rows, plan.columns)).unflatten(3, (grid.h, grid.w))
        tiles = tiles.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)
        tiles = tiles[:, plan.top : plan.bottom, plan.left : plan.right]
        if plan.target:
            tiles = F.interpolate(tiles.permute(0, 3, 1, 2), list(plan.target), mode="bilinear")
            tiles = tiles.permute(0, 2, 3, 1)
        ends = newline.expand(*tiles.shape[:2], 1, -1)
        return torch.cat([base, torch.cat([tiles, ends], 2).flatten(1, 2)], 1)


class OneVisionAdapter(AnyresAdapter):
    """Several images in a prompt are not cut into tiles."""

    @classmethod
    def packs(cls, config: Any, images: int) -> bool:
        """One image only."""
        return images == 1
