"""LFM2-VL: SigLIP2 with resampled positions, pixel unshuffle, MLP."""

from types import SimpleNamespace
from typing import Any

import torch

from ....errors import LuvcError
from ...planning.flops import EncoderShape
from ...planning.grid import Grid
from ..absolute import AbsoluteAdapter
from ..adapter import GridState, ImageGeometry
from ..processor import blank_run, known_token, pieces


class Adapter(AbsoluteAdapter):
    """One tile of any shape; pictures that the processor would cut into tiles are refused."""

    @classmethod
    def shape(cls, config: Any) -> EncoderShape:
        """Widths for the cost model."""
        v, D = config.vision_config, config.text_config.hidden_size
        width = v.hidden_size * config.downsample_factor**2
        return EncoderShape(
            layers=v.num_hidden_layers,
            hidden=v.hidden_size,
            intermediate=v.intermediate_size,
            prefix=0,
            patch_values=v.num_channels * v.patch_size**2,
            shuffle=config.downsample_factor**2,
            projector=(width, config.projector_hidden_size, D),
        )

    @classmethod
    def multiple(cls, config: Any) -> Grid:
        """Pixel unshuffle joins blocks."""
        return Grid(config.downsample_factor, config.downsample_factor)

    @classmethod
    def geometry(
        cls, config: Any, processor: Any, size: tuple[int, int] | None, images: int, frames: int
    ) -> ImageGeometry:
        """The processor's own grid for an image of `size`, which it must leave as it is."""
        edge = int(processor.tile_size)
        asked = size or (edge, edge)
        options = {"do_image_splitting": False}
        found = blank_run(processor, asked, options)
        h, w = (int(n) for n in found["spatial_shapes"][0])
        patch = config.vision_config.patch_size
        real = h * patch, w * patch
        if size is not None and real != size:
            raise LuvcError(
                f"the image processor brings {size[0]}x{size[1]} to {real[0]}x{real[1]}: use --image-size "
                f"{real[0]}x{real[1]}"
            )
        values = found["pixel_values"].shape[-1]
        shape, grid = (1, h * w, values), Grid(h, w)
        return ImageGeometry(real, 1, shape, grid, options, True, 1, 1, images, frames)

    @classmethod
    def size_step(cls, config: Any, processor: Any) -> tuple[int, int]:
        """Blocks of the pixel unshuffle."""
        step = config.vision_config.patch_size * config.downsample_factor
        return step, step

    @classmethod
    def expansion(
        cls, tokenizer: Any, processor: Any, geometry: ImageGeometry, tokens: int
    ) -> list[tuple[str, int]]:
        """From the processor's own method, with the shrunk count."""
        from transformers import Lfm2VlProcessor

        token = cls.image_token(tokenizer)
        fields: Any = SimpleNamespace(
            image_token=token,
            image_start_token=known_token(tokenizer, "<|image_start|>"),
            image_end_token=known_token(tokenizer, "<|image_end|>"),
            image_thumbnail_token="<|img_thumbnail|>",
        )
        found = Lfm2VlProcessor._build_image_tokens(fields, 1, 1, 0, tokens, False, True)
        return pieces("".join(found), token)

    def start(self, grid: Grid) -> GridState:
        """The table of positions, resampled to the grid once."""
        e = self.vision.embeddings
        side = e.position_embedding_size
        table = e.position_embedding.weight.detach().float().reshape(side, side, -1)
        shape = torch.tensor([[grid.h, grid.w]])
        found = e.resize_positional_embeddings(table, shape, grid.tokens)
        return GridState(grid, tables={"absolute": found})

    def embed(self, pixels: torch.Tensor, state: GridState) -> torch.Tensor:
        """Patches and their resampled positions."""
        x = self.vision.embeddings.patch_embedding(pixels)
        return x + state.tables["absolute"].to(x.dtype)

    def project(self, x: torch.Tensor, taps: list[torch.Tensor], grid: Grid) -> torch.Tensor:
        """Norm, pixel unshuffle on the rectangle, MLP."""
        x = self.vision.post_layernorm(x).unflatten(1, (grid.h, grid.w))
        return self.model.model.multi_modal_projector(x).flatten(1, 2)
