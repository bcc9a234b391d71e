"""LLaVA-NeXT: the whole picture and its tiles, packed without padding (anyres.py).

Letters: ../adapter.py; T tiles of an image, the whole picture first.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from ....engines.bundle.layout import Layout
from ....engines.bundle.schedule import Merge, Reduction
from ....errors import LuvcError
from ...planning.grid import Grid
from ..adapter import GridState, ImageGeometry
from ..anyres import Packing, packing
from ..processor import blank_run
from . import llava


class Adapter(llava.Adapter):
    """A graph entry is an image with all its tiles."""

    modules: ClassVar[tuple[str, ...]] = (*llava.Adapter.modules, "model.image_newline")
    packs_merged: ClassVar[bool] = True

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
    def tokens(
        cls,
        config: Any,
        geometry: ImageGeometry,
        merges: Sequence[Merge],
        exit: Reduction | None = None,
    ) -> int:
        """The packed sequence; a picture that is not cut has one line end."""
        if cls.packs(config, geometry.images):
            return packing(config, geometry.size, geometry.grid, merges, exit).tokens
        return super().tokens(config, geometry, merges, exit) + 1

    @classmethod
    def size_step(cls, config: Any, processor: Any) -> tuple[int, int]:
        """Whole tiles."""
        return cls.table(config)[0]

    def __init__(self, model, layout: Layout):
        super().__init__(model, layout)
        self.plan: Packing | None = None
        if layout.tiles > 1 and not layout.frames:
            grid, schedule = Grid(*layout.grid), layout.schedule
            steps = schedule.lasting, schedule.exit
            self.plan = packing(self.model.config, layout.image_size, grid, *steps)

    def embed(self, pixels: torch.Tensor, state: GridState) -> torch.Tensor:
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
