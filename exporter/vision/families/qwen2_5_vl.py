"""Qwen2.5-VL: most layers see windows."""

from dataclasses import replace
from typing import Any

import torch

from ...ops.attention import attention
from ...planning.flops import EncoderShape
from ..adapter import GridState
from ..rope import QwenVLAdapter


class Adapter(QwenVLAdapter):
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

    def tabulate(self, state: GridState) -> GridState:
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

    def order(self, x: torch.Tensor, state: GridState) -> torch.Tensor:
        """Window by window."""
        return x.index_select(1, state.tables["order"])

    def raster(self, x: torch.Tensor, state: GridState) -> torch.Tensor:
        """Back to rows and columns."""
        return x.index_select(1, state.tables["raster"])

    def attend(self, q, k, v, layer: int, state: GridState) -> torch.Tensor:
        """Inside windows, but for the layers with full attention."""
        if self.kind(layer):
            return super().attend(q, k, v, layer, state)
        outs, start = [], 0
        for count, size in state.tables["segments"]:
            at = start, count, size
            out = attention(
                self.layers[layer],
                _windows(q, *at),
                _windows(k, *at),
                _windows(v, *at),
                None,
                is_causal=False,
            )[0]
            outs.append(out.unflatten(0, (-1, count)).flatten(1, 2))
            start += count * size
        return torch.cat(outs, 1) if len(outs) > 1 else outs[0]


def _windows(x: torch.Tensor, start: int, count: int, size: int) -> torch.Tensor:
    """Windows become entries: [N, H, h * w, d] -> [N * count, H, size, d], from token `start` on."""
    x = x[:, :, start : start + count * size]
    return x.unflatten(2, (count, size)).transpose(1, 2).flatten(0, 1)
