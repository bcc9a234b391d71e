"""The vision loop that all families share, and what an adapter must say of its family.

Letters: N tiles, h rows and w columns of the token grid, n visual tokens of a tile, D width.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from ...engines.manifest import Schedule
from ...errors import LuvcError
from ..cost import EncoderShape
from ..grid import Grid, merge_grid, merged_grids
from ..oim import merge_tokens
from ..stamp import Run, mark


@dataclass(frozen=True)
class TileGeometry:
    """What the family's image processor makes of one image of the layout's size.

    Attributes:
        tiles: tiles per image, thumbnail included.
        tile_size: (height, width) of a tile in pixels.
        grid: vision tokens of a tile.
        processor_options: image processor keywords that give exactly `tiles` for any image.
    """

    tiles: int
    tile_size: tuple[int, int]
    grid: Grid
    processor_options: dict[str, int | bool]


class VisionAdapter(ABC):
    """What one family's tower looks like: geometry from its config, steps from its modules.

    The adapter is a plain object, not a module: the graph that owns it registers the Hugging Face
    modules under their own names, so that ONNX initializers keep the checkpoint's names.
    """

    prefix: ClassVar[int] = 0
    modules: ClassVar[tuple[str, ...]]  # dotted names of the modules the tower needs

    # ---- from the config alone
    @classmethod
    def check(cls, config: Any) -> None:
        """Refuse variants of the family that the adapter does not reproduce.

        Raises:
            LuvcError: names the setting.
        """
        del config

    @classmethod
    @abstractmethod
    def default_size(cls, config: Any, processor: Any) -> tuple[int, int]:
        """(height, width) of one tile, the image size when none is asked for."""

    @classmethod
    @abstractmethod
    def shape(cls, config: Any) -> EncoderShape:
        """Widths for the cost model."""

    @classmethod
    @abstractmethod
    def multiple(cls, config: Any) -> Grid:
        """Lengths the merged grid must be multiples of, for the projector."""

    @classmethod
    @abstractmethod
    def geometry(cls, config: Any, processor: Any, size: tuple[int, int]) -> TileGeometry:
        """Tiles and grid of one image of `size` = (height, width).

        Raises:
            LuvcError: the processor cannot give this size; says which it can.
        """

    @classmethod
    @abstractmethod
    def expansion(cls, tokenizer: Any, tokens_per_tile: int, tiles: int) -> list[tuple[str, int]]:
        """What the processor puts into the prompt for one image, as (text, repeats) pairs."""

    @classmethod
    @abstractmethod
    def image_token(cls, tokenizer: Any) -> str:
        """The token that stands once for each visual token."""

    @staticmethod
    def special_token(tokenizer: Any, name: str) -> str:
        """A token that the family's tokenizers name.

        Raises:
            LuvcError: the tokenizer does not name it.
        """
        token = getattr(tokenizer, name, None)
        if not token:
            raise LuvcError(
                f"the tokenizer names no {name}; add it to extra_special_tokens in "
                "tokenizer_config.json, as the family's published checkpoints do"
            )
        return str(token)

    # ---- on the modules
    def __init__(self, model: nn.Module):
        """model: the Hugging Face model, or a mirror of its modules under the same names."""
        self.model: Any = model

    @property
    @abstractmethod
    def layers(self) -> nn.ModuleList:
        """The tower's layers."""

    @abstractmethod
    def embed(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Pixels [N, 3, H, W] -> [N, prefix + h * w, D], raster order, positions added."""

    @abstractmethod
    def block(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        """One layer."""

    @abstractmethod
    def project(self, x: torch.Tensor, grid: Grid) -> torch.Tensor:
        """[N, prefix + h * w, D] -> visual tokens [N, n, D of the language model]."""


def mirror(model: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """An empty module that holds `model`'s submodules under their own dotted names."""
    root = nn.Module()
    for name in names:
        *path, last = name.split(".")
        parent = root
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = getattr(parent, part)
        parent.add_module(last, model.get_submodule(name))
    return root


class VisionGraph(nn.Module):
    """pixel_values [N, 3, H, W] float32 -> visual_embeds [N, n, D], merging on the way."""

    def __init__(
        self, model: nn.Module, adapter: type[VisionAdapter], grid: Grid, schedule: Schedule
    ):
        super().__init__()
        part = mirror(model, adapter.modules)
        for name, child in part.named_children():
            self.add_module(name, child)
        self.adapter = adapter(model)
        self.grid, self.schedule = grid, schedule
        self.multiple = adapter.multiple(model.config)
        self.layers: Sequence[int] = range(len(self.adapter.layers))

    def trace_once(self) -> tuple[Run, ...]:
        """Run only the first layer of each grid from now on -> the runs to stamp (stamp.py)."""
        grids = merged_grids(
            self.grid, self.schedule.vision, self.multiple, len(self.adapter.layers)
        )
        merging = {merge.layer for merge in self.schedule.vision}
        self.layers = [i for i in range(len(grids)) if not i or i in merging]
        lasts = [*(i - 1 for i in self.layers[1:]), len(grids) - 1]
        names = {id(m): name for name, m in self.named_modules()}
        name = names[id(self.adapter.layers)]
        return tuple(Run(a, b, name) for a, b in zip(self.layers, lasts, strict=True))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Run the tower; merges stand before their layer."""
        tower, grid = self.adapter, self.grid
        dtype = next(tower.layers.parameters()).dtype
        x = tower.embed(pixel_values.to(dtype))
        for layer in self.layers:
            for merge in self.schedule.vision:
                if merge.layer == layer:
                    after = merge_grid(grid, merge, self.multiple)
                    x = merge_tokens(x, grid, after, merge, tower.prefix, self.schedule.match)
                    grid = after
            x = mark(tower.block(layer, mark(x, layer, end=False)), layer, end=True)
        return tower.project(x, grid)
