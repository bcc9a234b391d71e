"""Towers whose positions are added in the embeddings and whose tokens are in raster order."""

from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import nn

from ...errors import LuvcError
from ..cost import EncoderShape
from ..grid import Grid
from .core import TileGeometry, VisionAdapter


def runs(text: str, token: str) -> list[tuple[str, int]]:
    """A prompt text as (piece, repeats) pairs, with runs of `token` counted."""
    pairs: list[tuple[str, int]] = []
    while text:
        before, found, text = text.partition(token)
        if before:
            pairs.append((before, 1))
        if found:
            count = 1
            while text.startswith(token):
                count, text = count + 1, text[len(token) :]
            pairs.append((token, count))
    return pairs


class InternVLAdapter(VisionAdapter):
    """InternVL 2.5 / 3 / 3.5 in Hugging Face's own format: InternViT, pixel shuffle, MLP."""

    prefix: ClassVar[int] = 1  # CLS
    modules: ClassVar[tuple[str, ...]] = ("model.vision_tower", "model.multi_modal_projector")

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
    def default_size(cls, config: Any, processor: Any) -> tuple[int, int]:
        """One tile."""
        return int(processor.size["height"]), int(processor.size["width"])

    @classmethod
    def shape(cls, config: Any) -> EncoderShape:
        """Widths for the cost model."""
        v, D = config.vision_config, config.text_config.hidden_size
        shuffle = round(1 / config.downsample_ratio) ** 2
        return EncoderShape(
            layers=v.num_hidden_layers,
            hidden=v.hidden_size,
            intermediate=v.intermediate_size,
            prefix=cls.prefix,
            patch_values=v.num_channels * v.patch_size[0] * v.patch_size[1],
            shuffle=shuffle,
            projector=(v.hidden_size * shuffle, D, D),
        )

    @classmethod
    def multiple(cls, config: Any) -> Grid:
        """Pixel shuffle joins blocks of 1 / downsample_ratio tokens along both axes."""
        block = round(1 / config.downsample_ratio)
        return Grid(block, block)

    @classmethod
    def geometry(cls, config: Any, processor: Any, size: tuple[int, int]) -> TileGeometry:
        """The processor decides the tiles of an image of `size`; tiles have the tower's own size."""
        v = config.vision_config
        tile = (int(processor.size["height"]), int(processor.size["width"]))
        if tile != tuple(v.image_size):
            raise LuvcError(
                f"the image processor makes tiles of {tile[0]}x{tile[1]} pixels but the vision tower's "
                f"position table is for {v.image_size[0]}x{v.image_size[1]}: mend preprocessor_config.json"
            )
        if size[0] % tile[0] or size[1] % tile[1]:
            raise LuvcError(
                f"image size {size[0]}x{size[1]} is not a whole number of {tile[0]}x{tile[1]} tiles: "
                f"use multiples such as {tile[0]}x{tile[1]} or {tile[0]}x{2 * tile[1]}"
            )
        cells = size[0] // tile[0] * (size[1] // tile[1])
        if cells > processor.max_patches:
            raise LuvcError(
                f"image size {size[0]}x{size[1]} needs {cells} tiles; the processor stops at "
                f"{processor.max_patches} (max_patches)"
            )
        # the processor adds a thumbnail to every picture of more than one tile
        options: dict[str, int | bool] = {"crop_to_patches": False}
        if cells > 1:
            options = {"crop_to_patches": True, "min_patches": cells, "max_patches": cells}
        grid = Grid(tile[0] // v.patch_size[0], tile[1] // v.patch_size[1])
        return TileGeometry(cells + (cells > 1), tile, grid, options)

    @classmethod
    def expansion(cls, tokenizer: Any, tokens_per_tile: int, tiles: int) -> list[tuple[str, int]]:
        """From the processor's own method, with the shrunk count per tile."""
        from transformers import InternVLProcessor

        fields = SimpleNamespace(
            start_image_token=cls.special_token(tokenizer, "start_image_token"),
            end_image_token=cls.special_token(tokenizer, "end_image_token"),
            image_token=cls.image_token(tokenizer),
            image_seq_length=tokens_per_tile,
        )
        text = InternVLProcessor.replace_image_token(fields, {"num_patches": [tiles]}, 0)  # type: ignore[arg-type]
        return runs(text, fields.image_token)

    @classmethod
    def image_token(cls, tokenizer: Any) -> str:
        """`<IMG_CONTEXT>` in the published checkpoints."""
        return cls.special_token(tokenizer, "context_image_token")

    @property
    def layers(self) -> nn.ModuleList:
        """InternViT layers."""
        return self.model.model.vision_tower.encoder.layer

    def embed(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Patches, CLS and the position table as it is (tiles have the table's size).

        Hugging Face's forward interpolates the table while tracing, even to its own size.
        """
        e = self.model.model.vision_tower.embeddings
        x = e.patch_embeddings(pixel_values)
        x = torch.cat([e.cls_token.expand(x.shape[0], -1, -1), x], 1)
        return x if e.position_embeddings is None else x + e.position_embeddings

    def block(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        """One InternViT layer."""
        return self.layers[layer](x)

    def project(self, x: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Pixel shuffle on the rectangle, then the MLP."""
        m = self.model.model
        x = m.vision_tower.layernorm(x)[:, self.prefix :]
        x = x.unflatten(1, (grid.h, grid.w))
        x = m.pixel_shuffle(x, scale_factor=self.model.config.downsample_ratio)
        return m.multi_modal_projector(x.flatten(1, 2))
