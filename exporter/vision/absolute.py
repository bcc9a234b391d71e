"""Towers whose positions are added in the embeddings and whose tokens are in raster order.

Letters: adapter.py.
"""

from typing import Any, ClassVar

import torch
from torch import nn

from ...engines.bundle.layout import Layout
from ...errors import LuvcError
from ..planning.flops import EncoderShape
from ..planning.grid import Grid
from .adapter import GridState, ImageGeometry, VisionAdapter
from .processor import crop_size


class AbsoluteAdapter(VisionAdapter):
    """A ViT with a table of positions (CLIP, SigLIP) behind `model.vision_tower`.

    Attributes:
        tower: dotted name of the tower.
        encoder: dotted name of its list of layers, inside the tower.
    """

    tower: ClassVar[str] = "model.vision_tower"
    encoder: ClassVar[str] = "encoder.layers"
    modules: ClassVar[tuple[str, ...]] = ("model.vision_tower", "model.multi_modal_projector")
    visual_token: ClassVar[str] = "<image>"
    reads_tables: ClassVar[bool] = False

    @classmethod
    def shape(cls, config: Any) -> EncoderShape:
        """Widths for the cost model: one linear layer (or two) for each visual token."""
        v = config.vision_config
        return EncoderShape(
            layers=v.num_hidden_layers,
            hidden=v.hidden_size,
            intermediate=v.intermediate_size,
            prefix=cls.prefix,
            patch_values=v.num_channels * pair(v.patch_size)[0] * pair(v.patch_size)[1],
            shuffle=cls.multiple(config).tokens,
            projector=cls.projector(config),
        )

    @classmethod
    def projector(cls, config: Any) -> tuple[int, ...]:
        """Widths of the projector's linear layers."""
        return config.vision_config.hidden_size, config.text_config.hidden_size

    @classmethod
    def table(cls, config: Any) -> tuple[tuple[int, int], Grid]:
        """(height, width) in pixels that the position table is made for, and its grid."""
        v = config.vision_config
        side, patch = pair(v.image_size), pair(v.patch_size)
        return side, Grid(side[0] // patch[0], side[1] // patch[1])

    @classmethod
    def geometry(
        cls, config: Any, processor: Any, size: tuple[int, int] | None, images: int, frames: int
    ) -> ImageGeometry:
        """One tile of the tower's own size, whatever the image's."""
        side, grid = cls.table(config)
        made = crop_size(processor)
        if made != side:
            raise LuvcError(
                f"the image processor makes {made[0]}x{made[1]} pixels but the vision tower's position "
                f"table is for {side[0]}x{side[1]}: mend preprocessor_config.json"
            )
        if size not in (None, side):
            raise LuvcError(
                f"{config.model_type} brings every image to {side[0]}x{side[1]}; leave --image-size out"
            )
        return ImageGeometry(side, 1, (1, 3, *side), grid, images=images, frames=frames)

    def __init__(self, model: nn.Module, layout: Layout):
        super().__init__(model, layout)
        self.vision: Any = model.get_submodule(self.tower)

    @property
    def layers(self) -> nn.ModuleList:
        """The tower's layers."""
        return self.vision.get_submodule(self.encoder)

    def embed(self, pixels: torch.Tensor, state: GridState) -> torch.Tensor:
        """Patches with their positions."""
        return self.vision.embeddings(pixels)

    def block(self, layer: int, x: torch.Tensor, state: GridState) -> torch.Tensor:
        """One layer."""
        out = self.layers[layer](x, attention_mask=None)
        return out[0] if isinstance(out, tuple) else out


def frame_side(config: Any, side: tuple[int, int], size: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) of a video's frames, which are one tile each.

    Raises:
        LuvcError: another size was asked for.
    """
    if size not in (None, side):
        raise LuvcError(
            f"{config.model_type} brings every frame of a video to {side[0]}x{side[1]}: use --image-size "
            f"{side[0]}x{side[1]}, or leave it out"
        )
    return side


def pair(value: Any) -> tuple[int, int]:
    """A size that a config gives as one number or as two."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def space_to_depth(x: torch.Tensor, grid: Grid, block: int) -> torch.Tensor:
    """[N, h * w, D] -> [N, h / b * w / b, D * b * b]: each b x b block becomes one token."""
    x = x.unflatten(1, (grid.h // block, block, grid.w // block, block))
    return x.permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)
