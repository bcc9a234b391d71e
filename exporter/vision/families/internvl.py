"""InternVL 2.5 / 3 / 3.5 in Hugging Face's own format: InternViT, pixel shuffle, MLP; tiles."""

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch

from ....engines.bundle.layout import Sampling
from ....errors import LuvcError
from ...planning.grid import Grid
from ..absolute import AbsoluteAdapter, frame_side
from ..adapter import GridState, ImageGeometry
from ..processor import count_tiles, named_token, pieces


class Adapter(AbsoluteAdapter):
    """Tiles of one size, cut by the processor to the shape of the picture, and a thumbnail."""

    prefix: ClassVar[int] = 1  # CLS
    encoder: ClassVar[str] = "encoder.layer"
    video: ClassVar[bool] = True
    sampling: ClassVar[Sampling] = "middles"

    @classmethod
    def check(cls, config: Any) -> None:
        """Only the published feature choice, and square position tables."""
        layer, strategy = config.vision_feature_layer, config.vision_feature_select_strategy
        if (layer, strategy) != (-1, "default"):
            raise LuvcError(
                f"vision features of layer {layer} with strategy {strategy!r} are not supported: "
                "only layer -1 with 'default' is"
            )
        height, width = config.vision_config.image_size
        if height != width:
            raise LuvcError(
                f"a vision tower for {height}x{width} pixels is not supported: only square"
            )

    @classmethod
    def multiple(cls, config: Any) -> Grid:
        """Pixel shuffle joins blocks of 1 / downsample_ratio tokens along both axes."""
        block = round(1 / config.downsample_ratio)
        return Grid(block, block)

    @classmethod
    def projector(cls, config: Any) -> tuple[int, ...]:
        """Two linear layers on shuffled tokens."""
        D = config.text_config.hidden_size
        return config.vision_config.hidden_size * cls.multiple(config).tokens, D, D

    @classmethod
    def geometry(
        cls, config: Any, processor: Any, size: tuple[int, int] | None, images: int, frames: int
    ) -> ImageGeometry:
        """The processor decides the tiles of an image of `size`; tiles have the tower's own size."""
        tile, grid = cls.table(config)
        made = int(processor.size["height"]), int(processor.size["width"])
        if made != tile:
            raise LuvcError(
                f"the image processor makes tiles of {made[0]}x{made[1]} pixels but the vision tower's "
                f"position table is for {tile[0]}x{tile[1]}: mend preprocessor_config.json"
            )
        options: dict[str, Any] = {"crop_to_patches": False}
        if frames:
            shape = (frames, 3, *frame_side(config, tile, size))
            return ImageGeometry(tile, frames, shape, grid, options, images=images, frames=frames)
        size = size or tile
        rows, columns = count_tiles(size, tile, processor.max_patches)
        cells = rows * columns
        # the processor adds a thumbnail to every picture of more than one tile
        if cells > 1:
            options = {"crop_to_patches": True, "min_patches": cells, "max_patches": cells}
        tiles = cells + (cells > 1)
        shape = (tiles, 3, *tile)
        return ImageGeometry(
            size, tiles, shape, grid, options, False, rows, columns, images, frames
        )

    @classmethod
    def size_step(cls, config: Any, processor: Any) -> tuple[int, int]:
        """Whole tiles."""
        return cls.table(config)[0]

    @classmethod
    def expansion(
        cls, tokenizer: Any, processor: Any, geometry: ImageGeometry, tokens: int
    ) -> list[tuple[str, int]]:
        """From the processor's own method, with the shrunk count per tile."""
        from transformers import InternVLProcessor

        fields = SimpleNamespace(
            start_image_token=named_token(tokenizer, "start_image_token"),
            end_image_token=named_token(tokenizer, "end_image_token"),
            image_token=cls.image_token(tokenizer),
            image_seq_length=tokens // geometry.tiles,
        )
        own: Any = InternVLProcessor
        if geometry.frames:
            frames = {"pixel_values_videos": [np.empty(geometry.frames)]}
            return pieces(own.replace_video_token(fields, frames, 0), fields.image_token)
        found = own.replace_image_token(fields, {"num_patches": [geometry.tiles]}, 0)
        return pieces(found, fields.image_token)

    @classmethod
    def placeholder(cls, tokenizer: Any, frames: int) -> str:
        """`<video>` where there are frames."""
        return named_token(tokenizer, "video_token") if frames else cls.image_token(tokenizer)

    @classmethod
    def image_token(cls, tokenizer: Any) -> str:
        """`<IMG_CONTEXT>` in the published checkpoints."""
        return named_token(tokenizer, "context_image_token")

    def embed(self, pixels: torch.Tensor, state: GridState) -> torch.Tensor:
        """Patches, CLS and the position table as it is (tiles have the table's size).

        Hugging Face's forward interpolates the table while tracing, even to its own size.
        """
        e = self.vision.embeddings
        x = e.patch_embeddings(pixels)
        x = torch.cat([e.cls_token.expand(x.shape[0], -1, -1), x], 1)
        return x if e.position_embeddings is None else x + e.position_embeddings

    def block(self, layer: int, x: torch.Tensor, state: GridState) -> torch.Tensor:
        """One InternViT layer."""
        return self.layers[layer](x)

    def project(self, x: torch.Tensor, taps: list[torch.Tensor], grid: Grid) -> torch.Tensor:
        """Pixel shuffle on the rectangle, then the MLP."""
        m = self.model.model
        x = self.vision.layernorm(x)[:, self.prefix :].unflatten(1, (grid.h, grid.w))
        x = m.pixel_shuffle(x, scale_factor=self.model.config.downsample_ratio)
        return m.multi_modal_projector(x.flatten(1, 2))
