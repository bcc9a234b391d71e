"""The vision tower for the study: merges, resized pictures, and what attention-based methods read.

Letters: N pictures, h rows and w columns of the patch grid, V visual tokens of a picture, L layers,
D width of the language model.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from luvc.engines.bundle.schedule import Merge
from luvc.exporter.planning.grid import Grid, merge_grid
from luvc.exporter.vision.families import internvl
from luvc.exporter.vision.oim import merge_tokens

from ..training.checkpoint import MEAN, STD


@dataclass(frozen=True)
class Seen:
    """What a method may look at before the language model, for each picture.

    Attributes:
        tokens: [N, V, D], projected.
        grid: visual tokens, rows x columns.
        cls: float32 [L, N, V], attention of the CLS token to each visual token's patches, mean over
            heads and the token's patches.
        received: float32 [L, N, V], the same of all tokens' attention.
        keys: float32 [N, V, d], head-mean keys of the penultimate layer, mean over patches.
    """

    tokens: Tensor
    grid: Grid
    cls: Tensor
    received: Tensor
    keys: Tensor


def normalise(pixels: Tensor) -> Tensor:
    """uint8 [N, height, width, 3] -> float32 [N, 3, height, width] as the processor makes them."""
    mean, std = (torch.tensor(v, device=pixels.device)[:, None, None] for v in (MEAN, STD))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


def resize(pixels: Tensor, grid: Grid, pitch: int) -> Tensor:
    """float32 [N, 3, height, width] -> `grid` visual tokens, `pitch` pixels apart; antialiased."""
    size = (grid.h * pitch, grid.w * pitch)
    return F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False)


class Tower:
    """InternVL's tower and projector, layer by layer.

    Args:
        model: InternVLForConditionalGeneration in evaluation mode.
    """

    def __init__(self, model):
        self.base, self.vision = model.model, model.model.vision_tower
        self.patch = int(self.vision.embeddings.patch_size[0])
        height, width = self.vision.embeddings.image_size
        self.grid = Grid(height // self.patch, width // self.patch)
        self.layers = self.vision.encoder.layer
        self.shuffle = model.config.downsample_ratio
        self.block = internvl.Adapter.multiple(model.config)

    def embed(self, pixels: Tensor) -> tuple[Tensor, Grid]:
        """float32 [N, 3, height, width] -> [N, 1 + h w, width], positions interpolated to the size."""
        e = self.vision.embeddings
        grid = Grid(pixels.shape[2] // self.patch, pixels.shape[3] // self.patch)
        places = e.position_embeddings
        if grid != self.grid:
            table = places[:, 1:].unflatten(1, (self.grid.h, self.grid.w)).permute(0, 3, 1, 2)
            table = F.interpolate(table, (grid.h, grid.w), mode="bicubic", align_corners=False)
            places = torch.cat([places[:, :1], table.flatten(2).mT], 1)
        x = torch.cat([e.cls_token.expand(len(pixels), -1, -1), e.patch_embeddings(pixels)], 1)
        return x + places, grid

    def project(self, x: Tensor, grid: Grid) -> Tensor:
        """[N, 1 + h w, width] -> visual tokens [N, V, D]."""
        x = self.vision.layernorm(x)[:, 1:].unflatten(1, (grid.h, grid.w))
        return self.base.multi_modal_projector(
            self.base.pixel_shuffle(x, self.shuffle).flatten(1, 2)
        )

    def run(
        self, pixels: Tensor, merges: tuple[Merge, ...] = (), match: bool = False
    ) -> tuple[Tensor, Grid]:
        """Visual tokens [N, V, D] and their grid, with OIM steps before their layers."""
        x, grid = self.embed(pixels)
        for number, layer in enumerate(self.layers):
            for merge in merges:
                if merge.layer == number:
                    after = merge_grid(grid, merge, self.block)
                    x, grid = merge_tokens(x, grid, after, merge, 1, match), after
            x = layer(x)
        return self.project(x, grid), self._tokens(grid)

    def look(self, pixels: Tensor) -> Seen:
        """Visual tokens with the attention of every layer beside them."""
        x, grid = self.embed(pixels)
        cls = []
        received = []
        keys = x
        for number, layer in enumerate(self.layers):
            weights, key = self._attention(layer, x)
            cls.append(self._cells(weights[:, 0, 1:, None], grid)[..., 0])
            received.append(self._cells(weights.mean(1)[:, 1:, None], grid)[..., 0])
            if number == len(self.layers) - 2:
                keys = self._cells(key[:, 1:], grid)
            x = layer(x)
        seen = torch.stack(cls), torch.stack(received), keys
        return Seen(self.project(x, grid), self._tokens(grid), *seen)

    def _tokens(self, grid: Grid) -> Grid:
        """Visual tokens of a patch grid."""
        return Grid(grid.h // self.block.h, grid.w // self.block.w)

    def _cells(self, values: Tensor, grid: Grid) -> Tensor:
        """Mean over the patches of each visual token: [N, h w, c] -> [N, V, c]."""
        blocks = values.unflatten(1, (-1, self.block.h, grid.w // self.block.w, self.block.w))
        return blocks.mean((2, 4)).flatten(1, 2)

    @staticmethod
    def _attention(layer, x: Tensor) -> tuple[Tensor, Tensor]:
        """Head-mean attention [N, S, S] and head-mean keys [N, S, d] of a layer, float32."""
        a, normed = layer.attention, layer.layernorm_before(x)
        query, key = (
            norm(projection(normed)).unflatten(2, (a.num_heads, a.head_dim)).transpose(1, 2).float()
            for norm, projection in ((a.q_norm, a.q_proj), (a.k_norm, a.k_proj))
        )
        return (query @ key.mT * a.scale).softmax(-1).mean(1), key.mean(1)
