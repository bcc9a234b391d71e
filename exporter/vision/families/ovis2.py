"""Ovis2: a ViT, space-to-depth, a distribution over a visual vocabulary; tiles."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from ....errors import LuvcError
from ...planning.flops import EncoderShape
from ...planning.grid import Grid
from ..absolute import AbsoluteAdapter, space_to_depth
from ..adapter import GridState, ImageGeometry
from ..processor import blank_run, count_tiles, known_token, pieces

INDICATORS = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")


class Adapter(AbsoluteAdapter):
    """Visual tokens mix the rows of a visual vocabulary's table; its last rows mark tiles in the prompt."""

    encoder: ClassVar[str] = "transformer.encoder.layers"
    modules: ClassVar[tuple[str, ...]] = ("model.vision_tower", "model.visual_embeddings_table")
    visual_token: ClassVar[str] = "<IMG_ATOM>"

    @classmethod
    def check(cls, config: Any) -> None:
        """Random visual tokens cannot be compiled."""
        kind = config.vision_config.tokenize_function
        if kind not in ("softmax", "st_argmax"):
            raise LuvcError(
                f"tokenize_function {kind!r} draws visual tokens at random: only 'softmax' and "
                "'st_argmax' can be exported"
            )

    @classmethod
    def traits(cls, config: Any) -> dict[str, Any]:
        """Tokens of the prompt that take their embedding from the visual table's last rows."""
        return {"indicators": tuple(config.visual_indicator_token_ids)}

    @classmethod
    def shape(cls, config: Any) -> EncoderShape:
        """Widths for the cost model: the head's vocabulary, then the table."""
        v = config.vision_config
        return replace(
            super().shape(config),
            shuffle=v.hidden_stride**2,
            gated=True,
            projector=(
                v.hidden_size * v.hidden_stride**2,
                v.vocab_size,
                config.text_config.hidden_size,
            ),
        )

    @classmethod
    def multiple(cls, config: Any) -> Grid:
        """Space-to-depth blocks; Hugging Face would pad a grid that does not divide with zeros."""
        f = config.vision_config.hidden_stride
        return Grid(f, f)

    @classmethod
    def geometry(
        cls, config: Any, processor: Any, size: tuple[int, int] | None, images: int, frames: int
    ) -> ImageGeometry:
        """Rows and columns of tiles as the processor cuts them, and the whole picture first."""
        tile, grid = cls.table(config)
        size = size or tile
        cells = math.prod(count_tiles(size, tile, processor.max_patches))
        options: dict[str, Any] = {"crop_to_patches": False}
        if cells > 1:
            options = {"crop_to_patches": True, "min_patches": cells, "max_patches": cells}
        rows, columns = blank_run(processor, size, options)["grids"][0].tolist()
        if rows * columns != cells:
            raise LuvcError(
                f"the image processor cuts {size[0]}x{size[1]} into {rows * columns} tiles, not {cells}: "
                "use another --image-size"
            )
        tiles = cells + (cells > 1)
        shape, resize = (tiles, 3, *tile), cells > 1
        return ImageGeometry(
            size, tiles, shape, grid, options, resize, rows, columns, images, frames
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
        import numpy as np
        from transformers import Ovis2Processor

        for token in INDICATORS:
            known_token(tokenizer, token)
        fields: Any = SimpleNamespace(image_seq_length=tokens // geometry.tiles)
        grids = np.array([[geometry.rows, geometry.columns]])
        found = Ovis2Processor.replace_image_token(fields, {"grids": grids}, 0)
        return pieces(found, cls.image_token(tokenizer))

    @classmethod
    def placeholder(cls, tokenizer: Any, frames: int) -> str:
        """`<image>`, which need not be a token."""
        return "<image>"

    def embed(self, pixels: torch.Tensor, state: GridState) -> torch.Tensor:
        """Patches with their positions."""
        return self.vision.transformer.embeddings(pixels)

    def project(self, x: torch.Tensor, taps: list[torch.Tensor], grid: Grid) -> torch.Tensor:
        """Norm, blocks, distribution, mixture of the table's rows."""
        v = self.model.config.vision_config
        x = space_to_depth(self.vision.transformer.rms_norm(x), grid, v.hidden_stride)
        logits = self.vision.head_norm(self.vision.head_linear(x))
        table = self.model.model.visual_embeddings_table.weight[: logits.shape[-1]]
        if v.tokenize_function == "st_argmax":
            return F.embedding(logits.argmax(-1), table)
        return logits.softmax(-1) @ table
