"""Qwen2.5-VL: most layers see windows."""

from dataclasses import replace
from typing import Any

import torch

from ...ops.attention import attention
from ...planning.flops import EncoderShape
from ...planning.grid import Grid, windows
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

    def start(self, grid: Grid) -> GridState:
        """Windows of equal sides; those at the ends have what is left."""
        state = super().start(grid)
        state.spans = {"height": windows(grid.h, self.reach), "width": windows(grid.w, self.reach)}
        return state

    @property
    def reach(self) -> int:
        """Patches along a window's side."""
        return self.vision.window_size // self.vision.patch_size

    def arranged(self, state: GridState) -> GridState:
        """Windows, equal sizes side by side: one attention for each size."""
        by_size: dict[int, list[torch.Tensor]] = {}
        members = self._windows(state)
        for window in members.unique().tolist():
            tokens = (members == window).nonzero()[:, 0]
            by_size.setdefault(len(tokens), []).append(tokens)
        order = torch.cat([t for group in by_size.values() for t in group])
        segments = tuple((len(group), size) for size, group in by_size.items())
        state.tables |= {"order": order, "raster": order.argsort(), "segments": segments}
        return state

    def _windows(self, state: GridState) -> torch.Tensor:
        """The window of each token, int64 [h * w]: by its position, or matched, where it always was."""
        if state.positions is not None:
            row, column = (state.positions[0] / self.reach).floor().long().unbind(-1)
            return row * (int(column.max()) + 1) + column
        spans = (torch.tensor(state.spans[axis]) for axis in ("height", "width"))
        row, column = (torch.arange(len(span)).repeat_interleave(span) for span in spans)
        return (row[:, None] * (int(column.max()) + 1) + column).flatten()

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
