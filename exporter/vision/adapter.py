"""What a family's adapter must say, for the loop in graph.py.

Letters: N graph entries (tiles or images), h rows and w columns of the token grid, n visual tokens of an
entry, D width.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from ...engines.bundle.layout import Layout, Sampling
from ...engines.bundle.schedule import Axis, Merge, Reduction
from ..planning.flops import EncoderShape
from ..planning.grid import Grid, merged_grids
from .oim import MatchedStep
from .processor import known_token


@dataclass(frozen=True)
class ImageGeometry:
    """What the family's image processor makes of one image (or video) of a layout.

    Attributes:
        size: (height, width) of the image, in pixels.
        tiles: times the tower runs for it: tiles and thumbnail, or steps of a video.
        pixel_shape: its pixel_values as the vision graph takes them, graph entries first.
        grid: vision tokens of a tile.
        options: image processor keywords that give exactly this for the layout's images.
        resize: images must be brought to `size` first.
        rows, columns: how the tiles without the thumbnail are laid out; 0 without any.
        images: in the prompt.
        frames: of a video; 0 for an image.
        asked: (height, width) that was asked for where `size` was chosen to be smaller; None where not.
    """

    size: tuple[int, int]
    tiles: int
    pixel_shape: tuple[int, ...]
    grid: Grid
    options: dict[str, Any] = field(default_factory=dict)
    resize: bool = False
    rows: int = 0
    columns: int = 0
    images: int = 1
    frames: int = 0
    asked: tuple[int, int] | None = None


@dataclass
class GridState:
    """The token grid between two OIM steps, and what was worked out for it at export.

    Attributes:
        grid: of the tokens.
        positions: [1, h * w, 2] row and column of each token on the first grid, raster order; means after
            merges, [N, h * w, 2] after matched ones.
        tables: constants of this grid (cos and sin, window order).
        spans: lengths of the windows along each axis that matched tokens stay inside; none of their own
            where the whole row is one.
    """

    grid: Grid
    positions: torch.Tensor | None = None
    tables: dict[str, Any] = field(default_factory=dict)
    spans: dict[Axis, tuple[int, ...]] = field(default_factory=dict)


class VisionAdapter(ABC):
    """What one family's tower looks like: geometry from its config, steps from its modules.

    The adapter is a plain object, not a module: the graph that owns it registers the Hugging Face
    modules under their own names, so that ONNX initializers keep the checkpoint's names.
    """

    prefix: ClassVar[int] = 0  # tokens before the grid (CLS)
    modules: ClassVar[tuple[str, ...]]  # dotted names of the modules the tower needs
    visual_token: ClassVar[str]  # stands in the prompt once for each visual token
    packs_merged: ClassVar[bool] = (
        False  # packs by what merged where, so lasting merges must be fixed
    )
    reads_tables: ClassVar[bool] = True  # layers read tables of their state, not only hidden states
    video: ClassVar[bool] = False  # its processor takes videos
    sampling: ClassVar[Sampling] = "starts"  # which frames of a longer one, as its processor does
    needs_image: ClassVar[bool] = False  # its processor refuses questions without one
    left_out: ClassVar[tuple[str, ...]] = ()  # beginnings of weights' names that no bundle takes
    template: ClassVar[str | None] = None  # chat template of families that publish none
    # the graph's copy of `modules`: single parameters are traced only when read from here
    parts: Any

    # ---- from the config alone
    @classmethod
    def narrowed(cls, config: Any) -> Any:
        """The config without the parts that no bundle takes; `left_out` names their weights."""
        return config

    @classmethod
    def check(cls, config: Any) -> None:
        """Refuse variants of the family that the adapter does not reproduce.

        Raises:
            LuvcError: names the setting.
        """
        del config

    @classmethod
    def traits(cls, config: Any) -> dict[str, Any]:
        """What the family adds to its text model's traits (see language/traits.py)."""
        del config
        return {}

    @classmethod
    @abstractmethod
    def shape(cls, config: Any) -> EncoderShape:
        """Widths for the cost model."""

    @classmethod
    def multiple(cls, config: Any) -> Grid:
        """Lengths the merged grid must be multiples of, for the projector."""
        del config
        return Grid(1, 1)

    @classmethod
    @abstractmethod
    def geometry(
        cls, config: Any, processor: Any, size: tuple[int, int] | None, images: int, frames: int
    ) -> ImageGeometry:
        """What an image of `size` = (height, width) becomes; None takes the family's smallest usual one.

        Raises:
            LuvcError: the processor cannot give this size; says which it can.
        """

    @classmethod
    def size_step(cls, config: Any, processor: Any) -> tuple[int, int] | None:
        """(height, width) in pixels that image sizes are whole multiples of; None where there is one size."""
        del config, processor
        return None

    @classmethod
    def tokens(
        cls,
        config: Any,
        geometry: ImageGeometry,
        merges: Sequence[Merge],
        exit: Reduction | None = None,
    ) -> int:
        """Visual tokens of one image after these OIM steps, or on a smaller grid.

        Raises:
            LuvcError: the family cannot pack the smaller grid.
        """
        if exit:
            return geometry.tiles * exit.rows * exit.columns
        shape = cls.shape(config)
        grids = merged_grids(geometry.grid, tuple(merges), cls.multiple(config), shape.layers)
        return geometry.tiles * grids[-1].tokens // shape.shuffle

    @classmethod
    def visual_grid(
        cls, config: Any, geometry: ImageGeometry, merged: Grid
    ) -> tuple[int, int, int] | None:
        """(time, rows, columns) of an image's visual tokens, for positions in three axes."""
        del config, geometry, merged
        return None

    @classmethod
    def expansion(
        cls, tokenizer: Any, processor: Any, geometry: ImageGeometry, tokens: int
    ) -> list[tuple[str, int]]:
        """What the family's processor puts into the prompt for one image, as (text, repeats) pairs.

        Args:
            tokenizer: the checkpoint's.
            processor: its image processor.
            geometry: of the image, its grid that of a tile's visual tokens.
            tokens: visual tokens of the image.
        """
        del processor, geometry
        return [(cls.image_token(tokenizer), tokens)]

    @classmethod
    def image_token(cls, tokenizer: Any) -> str:
        """The token that stands once for each visual token."""
        return known_token(tokenizer, cls.visual_token)

    @classmethod
    def placeholder(cls, tokenizer: Any, frames: int) -> str:
        """What the chat template writes for one image."""
        del frames
        return cls.image_token(tokenizer)

    # ---- on the modules
    def __init__(self, model: nn.Module, layout: Layout):
        """model: the Hugging Face model; layout: what the graph is made for."""
        self.model: Any = model
        self.layout = layout
        self.multiple_of = type(self).multiple(self.model.config)

    @property
    @abstractmethod
    def layers(self) -> nn.ModuleList:
        """The tower's layers."""

    @property
    def depth(self) -> int:
        """Layers that run."""
        return type(self).shape(self.model.config).layers

    @property
    def taps(self) -> tuple[int, ...]:
        """Layers whose output is used beside the last one's."""
        return ()

    def kind(self, layer: int) -> Any:
        """Neighbouring layers of one kind are alike but for weights."""
        del layer
        return None

    def start(self, grid: Grid) -> GridState:
        """The state before the first layer."""
        return GridState(grid)

    def follow(self, state: GridState, merge: Merge, after: Grid) -> GridState:
        """The state after an OIM step."""
        del state, merge
        return GridState(after)

    def spans(self, state: GridState, axis: Axis) -> tuple[int, ...]:
        """Lengths of the parts of a row (or column) inside which neighbours may be matched."""
        return state.spans.get(axis, (state.grid.length(axis),))

    def matched(self, state: GridState, step: MatchedStep, after: GridState) -> GridState:
        """The state after a step that matched.

        Args:
            state: before it.
            step: what merged.
            after: what `follow` gave for it, at export.
        """
        del state, step
        return after

    @abstractmethod
    def embed(self, pixels: torch.Tensor, state: GridState) -> torch.Tensor:
        """Pixels [N, ...] -> [N', prefix + h * w, D], raster order, positions added."""

    def order(self, x: torch.Tensor, state: GridState) -> torch.Tensor:
        """Raster order to the order of the layers."""
        del state
        return x

    def raster(self, x: torch.Tensor, state: GridState) -> torch.Tensor:
        """The order of the layers to raster order."""
        del state
        return x

    @abstractmethod
    def block(self, layer: int, x: torch.Tensor, state: GridState) -> torch.Tensor:
        """One layer."""

    @abstractmethod
    def project(self, x: torch.Tensor, taps: list[torch.Tensor], grid: Grid) -> torch.Tensor:
        """[N', prefix + h * w, D] -> visual tokens [N', n, D of the language model].

        Features for deeper language layers lie behind them along the last axis.
        """

    def pack(self, x: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Visual tokens of the tiles [N', n, D] -> of the graph's entries [N, n, D]."""
        del grid
        return x
