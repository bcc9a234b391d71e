"""Qwen2-VL, Qwen2.5-VL (windows) and Qwen3-VL (absolute table, DeepStack)."""

from dataclasses import replace
from typing import Any, ClassVar

import torch

from ...ops.attention import attention
from ...planning.cost import EncoderShape
from ...planning.grid import Grid
from ..adapter import ImageGeometry, State
from ..processor_files import known_token
from ..rope import RopeAdapter


class QwenVLAdapter(RopeAdapter):
    """What the three have in common: images and videos."""

    video: ClassVar[bool] = True

    @classmethod
    def placeholder(cls, tokenizer: Any, frames: int) -> str:
        """The template writes one pad token, of images or of videos."""
        return known_token(tokenizer, "<|video_pad|>" if frames else cls.visual_token)


class Qwen2VLAdapter(QwenVLAdapter):
    """Full attention in every layer."""

    width_name: ClassVar[str] = "embed_dim"

    @classmethod
    def intermediate(cls, config: Any) -> int:
        """A multiple of the width."""
        v = config.vision_config
        return int(v.embed_dim * v.mlp_ratio)


class Qwen25VLAdapter(QwenVLAdapter):
    """Most layers see windows of a fixed area of the image; OIM leaves the area and thins its tokens."""

    @classmethod
    def shape(cls, config: Any) -> EncoderShape:
        """Widths for the cost model, windows included."""
        v = config.vision_config
        window = (v.window_size // v.patch_size) ** 2
        full = tuple(v.fullatt_block_indexes)
        return replace(super().shape(config), gated=True, window=window, full=full)

    @classmethod
    def traits(cls, config: Any) -> dict[str, Any]:
        """Video positions run with the time."""
        return {"time_scale": float(config.vision_config.tokens_per_second)}

    def kind(self, layer: int) -> bool:
        """Full attention or windows."""
        return layer in self.vision.fullatt_block_indexes

    def tabulate(self, state: State) -> State:
        """Windows, equal sizes side by side: one attention for each size; then cos and sin in that order."""
        assert state.positions is not None
        side = self.vision.window_size // self.vision.patch_size
        row, column = (state.positions / side).floor().long().reshape(-1, 2).unbind(-1)
        windows = row * (int(column.max()) + 1) + column
        by_size: dict[int, list[torch.Tensor]] = {}
        for window in windows.unique().tolist():
            tokens = (windows == window).nonzero()[:, 0]
            by_size.setdefault(len(tokens), []).append(tokens)
        order = torch.cat([t for group in by_size.values() for t in group])
        segments = tuple((len(group), size) for size, group in by_size.items())
        state.tables |= {"order": order, "raster": order.argsort(), "segments": segments}
        return super().tabulate(state)

    def order(self, x: torch.Tensor, state: State) -> torch.Tensor:
        """Window by window."""
        return x.index_select(1, state.tables["order"])

    def raster(self, x: torch.Tensor, state: State) -> torch.Tensor:
        """Back to rows and columns."""
        return x.index_select(1, state.tables["raster"])

    def see(self, q, k, v, layer: int, state: State) -> torch.Tensor:
        """Inside windows, but for the layers with full attention."""
        if self.kind(layer):
            return super().see(q, k, v, layer, state)
        outs, start = [], 0
        for count, size in state.tables["segments"]:
            parts = (t[:, :, start : start + count * size] for t in (q, k, v))
            # windows become entries: [N, H, count * size, d] -> [N * count, H, size, d]
            q_, k_, v_ = (
                t.unflatten(2, (count, size)).transpose(1, 2).flatten(0, 1) for t in parts
            )
            out = attention(self.layers[layer], q_, k_, v_, None, is_causal=False)[0]
            outs.append(out.unflatten(0, (-1, count)).flatten(1, 2))
            start += count * size
        return torch.cat(outs, 1) if len(outs) > 1 else outs[0]


class Qwen3VLAdapter(QwenVLAdapter):
    """A resampled table of positions beside the rotary ones; features of inner layers (DeepStack)."""

    @classmethod
    def shape(cls, config: Any) -> EncoderShape:
        """Widths for the cost model; a merger for each tapped layer."""
        taps = len(config.vision_config.deepstack_visual_indexes)
        return replace(super().shape(config), projectors=1 + taps)

    @classmethod
    def traits(cls, config: Any) -> dict[str, Any]:
        """Visual features that join the first language layers."""
        return {"deepstack": len(config.vision_config.deepstack_visual_indexes)}

    @classmethod
    def visual_grid(
        cls, config: Any, geometry: ImageGeometry, merged: Grid
    ) -> tuple[int, int, int]:
        """A video's frames stand apart in the prompt, each with its time in words."""
        return 1, *super().visual_grid(config, geometry, merged)[1:]

    @classmethod
    def expansion(cls, tokenizer: Any, processor: Any, geometry: ImageGeometry, tokens: int):
        """A video: its steps one by one (Qwen3VLProcessor.replace_video_token)."""
        if not geometry.frames:
            return super().expansion(tokenizer, processor, geometry, tokens)
        step = [
            ("<{seconds} seconds><|vision_start|>", 1),
            (cls.visual_token, tokens // geometry.tiles),
            ("<|vision_end|>", 1),
        ]
        return step * geometry.tiles

    @property
    def taps(self) -> tuple[int, ...]:
        """Tapped layers."""
        return tuple(self.vision.deepstack_visual_indexes)

    def start(self, grid: Grid) -> State:
        """The table of positions, resampled to the grid once."""
        from transformers.vision_utils import get_vision_interpolation_indices_and_weights

        v = self.vision
        index, weight = get_vision_interpolation_indices_and_weights(
            torch.tensor([[1, grid.h, grid.w]]), num_grid_per_side=v.num_grid_per_side,
            mode=v.interpolation_mode, align_corners=v.interpolation_align_corners,
            spatial_merge_size=1,
        )  # fmt: skip
        table = v.pos_embed.weight.detach().float()
        state = super().start(grid)
        state.tables["absolute"] = (table[index] * weight[..., None]).sum(1)
        return state

    def embed(self, pixels: torch.Tensor, state: State) -> torch.Tensor:
        """Patches and their resampled positions."""
        x = super().embed(pixels, state)
        return x + state.tables["absolute"].to(x.dtype)

    def project(self, x: torch.Tensor, taps: list[torch.Tensor], grid: Grid) -> torch.Tensor:
        """The merger of the last layer, then those of the tapped ones along the last axis."""
        pairs = zip(
            (self.vision.merger, *self.vision.deepstack_merger_list), (x, *taps), strict=True
        )
        return torch.cat([self.merger(module, t, grid) for module, t in pairs], -1)
