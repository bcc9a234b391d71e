"""Towers with rotary positions in two axes, and those over k x k blocks of patches (Qwen-VL, GLM-V).

The checkpoint's processors give patches block by block; here the tokens are in raster order, so that
OIM's neighbours are neighbours, and go back into blocks before the merger. Windows have an order of
their own. Letters: adapter.py; P patches of an image, k the side of a block, d head size.
"""

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from ...engines.bundle.layout import Layout
from ...engines.bundle.schedule import Merge
from ...errors import LuvcError
from ..ops.attention import attention
from ..planning.flops import EncoderShape
from ..planning.grid import Grid, thinned
from .adapter import GridState, ImageGeometry, VisionAdapter
from .oim import FixedStep, MatchedStep
from .processor import blank_run, known_token

USUAL = (448, 448)  # height, width in pixels where no image size is asked for


class RotaryAdapter(VisionAdapter):
    """Positions in two axes that follow the merges."""

    follows: ClassVar[bool] = True
    vision: Any  # the tower

    def start(self, grid: Grid) -> GridState:
        """Each patch at its row and column."""
        rows, columns = torch.arange(grid.h), torch.arange(grid.w)
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).float()
        return self.tabulate(self.arranged(GridState(grid, places.reshape(1, -1, 2))))

    def follow(self, state: GridState, merge: Merge, after: Grid) -> GridState:
        """Merged tokens stand at their mean position, so that |cos, sin| stays 1."""
        if self.layout.schedule.match:  # where they stand hangs on the picture: `matched`
            axis, spans = merge.axis, dict(state.spans)
            gone = state.grid.length(axis) - after.length(axis)
            spans[axis] = thinned(self.spans(state, axis), gone)
            return self.arranged(GridState(after, spans=spans))
        assert state.positions is not None
        places = FixedStep(state.grid, after, merge).merge(state.positions)
        return self.tabulate(self.arranged(GridState(after, places)))

    def matched(self, state: GridState, step: MatchedStep, after: GridState) -> GridState:
        """The mean positions, and cos and sin of them, inside the graph."""
        assert state.positions is not None
        places = step.merge(state.positions.expand(step.entries, -1, -1))
        return self.tabulate(replace(after, positions=places, tables=dict(after.tables)))

    def arranged(self, state: GridState) -> GridState:
        """The state with what its layers' order and windows need."""
        return state

    def tabulate(self, state: GridState) -> GridState:
        """cos and sin [1 or N, h * w, 1, d] of the positions, in the order of the layers."""
        assert state.positions is not None
        places = self.order(state.positions, state)
        turned = self.rotary(places[0, :1, 0], places.flatten(0, 1))
        cos, sin = (t.float().unflatten(0, (-1, places.shape[1]))[:, :, None] for t in turned)
        state.tables |= {"cos": cos, "sin": sin}
        return state

    @property
    @abstractmethod
    def rotary(self) -> nn.Module:
        """The tower's own, which takes its dtype from a tensor, and positions [N * h * w, 2]."""

    # ---- attention
    def heads(self, attn: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values [N, h * w, H, d]."""
        found = (attn.q_proj(x), attn.k_proj(x), attn.v_proj(x))
        return tuple(y.unflatten(-1, (attn.num_heads, -1)) for y in found)

    def self_attention(
        self, attn: Any, x: torch.Tensor, layer: int, state: GridState
    ) -> torch.Tensor:
        """Self-attention with rotary positions, inside each entry, before its last matrix."""
        q, k, v = self.heads(attn, x)
        cos, sin = state.tables["cos"], state.tables["sin"]
        q, k = (_rotate(y, cos, sin).transpose(1, 2) for y in (q, k))
        return self.attend(q, k, v.transpose(1, 2), layer, state).flatten(2)

    def attend(self, q, k, v, layer: int, state: GridState) -> torch.Tensor:
        """q, k, v [N, H, h * w, d] -> [N, h * w, H, d]; everything sees everything."""
        return attention(self.layers[layer], q, k, v, None, is_causal=False)[0]


class RopeAdapter(RotaryAdapter):
    """One graph entry is an image (or one step of a video): its patches."""

    modules: ClassVar[tuple[str, ...]] = ("model.visual",)
    visual_token: ClassVar[str] = "<|image_pad|>"
    width_name: ClassVar[str] = "hidden_size"  # of the tower's width in its config
    # whether each step of a video is by itself in the prompt, with its time
    steps_apart: ClassVar[bool] = False

    @classmethod
    def multiple(cls, config: Any) -> Grid:
        """Blocks of the merger."""
        k = config.vision_config.spatial_merge_size
        return Grid(k, k)

    @classmethod
    def shape(cls, config: Any) -> EncoderShape:
        """Widths for the cost model."""
        v, D = config.vision_config, config.text_config.hidden_size
        hidden = getattr(v, cls.width_name)
        blocks = hidden * v.spatial_merge_size**2
        return EncoderShape(
            layers=v.depth,
            hidden=hidden,
            intermediate=cls.intermediate(config),
            prefix=0,
            patch_values=3 * v.temporal_patch_size * v.patch_size**2,
            shuffle=v.spatial_merge_size**2,
            projector=(blocks, blocks, D),
        )

    @classmethod
    def intermediate(cls, config: Any) -> int:
        """Width of the tower's MLP."""
        return config.vision_config.intermediate_size

    @classmethod
    def geometry(
        cls, config: Any, processor: Any, size: tuple[int, int] | None, images: int, frames: int
    ) -> ImageGeometry:
        """The processor's own grid for an image of `size`, which it must leave as it is."""
        v = config.vision_config
        asked = size or USUAL
        values = blank_run(processor, asked, {})
        _, h, w = (int(n) for n in values["image_grid_thw"][0])
        real = h * v.patch_size, w * v.patch_size
        if size is not None and real != size:
            raise LuvcError(
                f"the image processor brings {size[0]}x{size[1]} to {real[0]}x{real[1]} (multiples of "
                f"{v.patch_size * v.spatial_merge_size} within its pixel limits): use --image-size "
                f"{real[0]}x{real[1]}"
            )
        steps = 1
        if frames:
            if frames % v.temporal_patch_size:
                raise LuvcError(
                    f"a video of {frames} frames does not divide into steps of "
                    f"{v.temporal_patch_size} frames: use a multiple"
                )
            steps = frames // v.temporal_patch_size
        shape = (steps, h * w, *values["pixel_values"].shape[1:])
        return ImageGeometry(
            real, steps, shape, Grid(h, w), resize=True, images=images, frames=frames
        )

    @classmethod
    def size_step(cls, config: Any, processor: Any) -> tuple[int, int]:
        """Blocks of the merger."""
        step = config.vision_config.patch_size * config.vision_config.spatial_merge_size
        return step, step

    @classmethod
    def visual_grid(
        cls, config: Any, geometry: ImageGeometry, merged: Grid
    ) -> tuple[int, int, int]:
        """Steps, and blocks of the merged grid."""
        k = config.vision_config.spatial_merge_size
        return 1 if cls.steps_apart else geometry.tiles, merged.h // k, merged.w // k

    def __init__(self, model: nn.Module, layout: Layout):
        super().__init__(model, layout)
        self.vision = self.model.model.visual
        self.side = self.multiple_of.h

    @property
    def layers(self) -> nn.ModuleList:
        """The tower's blocks."""
        return self.vision.blocks

    @property
    def rotary(self) -> nn.Module:
        """Of all blocks."""
        return self.vision.rotary_pos_emb

    # ---- the steps
    def embed(self, pixels: torch.Tensor, state: GridState) -> torch.Tensor:
        """Patches [N, P, values] -> [N, P, D] in raster order.

        The convolution's kernel equals its stride, so it is a matrix; TensorRT refuses the Conv3d.
        """
        p = self.vision.patch_embed.proj
        return self.unblock(F.linear(pixels, p.weight.flatten(1), p.bias), state.grid)

    def blocked(self, x: torch.Tensor, grid: Grid) -> torch.Tensor:
        """[N, h * w, D] in raster order -> block by block."""
        k = self.side
        x = x.unflatten(1, (grid.h // k, k, grid.w // k, k))
        return x.permute(0, 1, 3, 2, 4, 5).flatten(1, 4)

    def unblock(self, x: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Block by block -> raster order."""
        k = self.side
        x = x.unflatten(1, (grid.h // k, grid.w // k, k, k))
        return x.permute(0, 1, 3, 2, 4, 5).flatten(1, 4)

    def block(self, layer: int, x: torch.Tensor, state: GridState) -> torch.Tensor:
        """One layer on all entries at once.

        Hugging Face's forward takes one long sequence and splits it by lengths it reads from a tensor,
        which cannot be traced for a dynamic number of images.
        """
        b: Any = self.layers[layer]
        x = x + b.attn.proj(self.self_attention(b.attn, b.norm1(x), layer, state))
        return x + b.mlp(b.norm2(x))

    def heads(self, attn: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Of one matrix."""
        return attn.qkv(x).unflatten(-1, (3, attn.num_heads, -1)).unbind(2)

    def merger(self, module: nn.Module, x: torch.Tensor, grid: Grid) -> torch.Tensor:
        """A k x k merger, which takes rows: [N, h * w, D] -> [N, n, D of the language model]."""
        rows = module(self.blocked(x, grid).flatten(0, 1))
        return rows.unflatten(0, (-1, grid.tokens // self.side**2))

    def project(self, x: torch.Tensor, taps: list[torch.Tensor], grid: Grid) -> torch.Tensor:
        """The merger."""
        return self.merger(self.vision.merger, x, grid)


class QwenVLAdapter(RopeAdapter):
    """What the three have in common: images and videos."""

    video: ClassVar[bool] = True

    @classmethod
    def placeholder(cls, tokenizer: Any, frames: int) -> str:
        """The template writes one pad token, of images or of videos."""
        return known_token(tokenizer, "<|video_pad|>" if frames else cls.visual_token)


def resampled(owner: Any, table: Any, grid: Grid) -> torch.Tensor:
    """A square table of positions on a grid: [h * w, D] in raster order.

    Args:
        owner: the module that says how its table is resampled.
        table: its embedding.
        grid: of the tokens.
    """
    from transformers.vision_utils import get_vision_interpolation_indices_and_weights

    index, weight = get_vision_interpolation_indices_and_weights(
        torch.tensor([[1, grid.h, grid.w]]),
        num_grid_per_side=owner.num_grid_per_side,
        mode=owner.interpolation_mode,
        align_corners=owner.interpolation_align_corners,
        spatial_merge_size=1,
    )
    return (table.weight.detach().float()[index] * weight[..., None]).sum(1)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate [N, S, H, d] in float32, as the checkpoints were trained."""
    y = x.float()
    first, second = y.chunk(2, -1)
    return (y * cos + torch.cat([-second, first], -1) * sin).to(x.dtype)
