"""LLaVA-OneVision: LLaVA-NeXT's packing for one image, shrunk where it is long; several are not cut.

Letters: ../adapter.py; T frames of a video.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from ....engines.bundle.layout import Layout
from ....engines.bundle.schedule import Merge, Reduction
from ....errors import LuvcError
from ...planning.grid import Grid, merged_grids
from ..absolute import frame_side
from ..adapter import ImageGeometry
from ..exit import Shrink, linear_matrix
from ..processor import known_token
from . import llava_next


class Adapter(llava_next.Adapter):
    """Several images in a prompt are not cut into tiles, nor are frames, which are halved in both axes."""

    video: ClassVar[bool] = True

    @classmethod
    def packs(cls, config: Any, images: int) -> bool:
        """One image only."""
        return images == 1

    @classmethod
    def geometry(
        cls, config: Any, processor: Any, size: tuple[int, int] | None, images: int, frames: int
    ) -> ImageGeometry:
        """Frames are one tile each."""
        if not frames:
            return super().geometry(config, processor, size, images, frames)
        if frames == 1:  # the image processor would cut a picture that stands alone
            raise LuvcError(f"{config.model_type} takes 2 frames or more: give --frames 2")
        side, grid = cls.table(config)
        shape = (1, frames, 3, *frame_side(config, side, size))
        return ImageGeometry(side, frames, shape, grid, {}, True, images=images, frames=frames)

    @classmethod
    def tokens(
        cls,
        config: Any,
        geometry: ImageGeometry,
        merges: Sequence[Merge],
        exit: Reduction | None = None,
    ) -> int:
        """Of a video: its halved frames and one line end."""
        if not geometry.frames:
            return super().tokens(config, geometry, merges, exit)
        if exit:
            raise LuvcError(
                f"{config.model_type} halves the frames of a video, in the middle of the tokens of a smaller "
                f"grid ({exit.how}): take another --method"
            )
        layers, block = cls.shape(config).layers, cls.multiple(config)
        merged = merged_grids(geometry.grid, tuple(merges), block, layers)[-1]
        return geometry.tiles * halved(geometry.grid, merged).tokens + 1

    @classmethod
    def placeholder(cls, tokenizer: Any, frames: int) -> str:
        """`<video>` where there are frames."""
        return known_token(tokenizer, "<video>" if frames else cls.visual_token)

    def __init__(self, model: Any, layout: Layout):
        super().__init__(model, layout)
        grid, merged = Grid(*layout.grid), Grid(*layout.merged_grid)
        self.half = Shrink(merged, halved(grid, merged), linear_matrix) if layout.frames else None

    def pack(self, x: torch.Tensor, grid: Grid) -> torch.Tensor:
        """[N * T, h * w, D] -> [N, n, D]."""
        if self.half is None:
            return super().pack(x, grid)
        x = self.half(x).unflatten(0, (-1, self.layout.tiles)).flatten(1, 2)
        end = self.parts.model.image_newline.to(x.dtype)
        return torch.cat([x, end.expand(x.shape[0], 1, -1)], 1)


def halved(grid: Grid, merged: Grid) -> Grid:
    """What is left of a frame's tokens behind the projector; OIM's share is taken off.

    Args:
        grid: of the frame before OIM.
        merged: after it.
    """
    sides = ((grid.h, merged.h), (grid.w, merged.w))
    return Grid(*(max(1, round(-(-full // 2) * left / full)) for full, left in sides))
