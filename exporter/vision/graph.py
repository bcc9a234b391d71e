"""The vision loop that all families share.

Letters: N graph entries (tiles or images), n visual tokens of an entry, D width.
"""

from collections.abc import Sequence

import torch
from torch import nn

from ...engines.manifest import Layout
from ..grid import Grid, merge_grid
from ..mirror import mirror
from ..oim import merge_tokens
from ..stamp import Run, mark
from .core import VisionAdapter


class VisionGraph(nn.Module):
    """pixel_values float32 [N, ...] -> visual_embeds [N, n, D], merging on the way."""

    def __init__(self, model: nn.Module, adapter: type[VisionAdapter], layout: Layout):
        super().__init__()
        part = mirror(model, adapter.modules)
        for name, child in part.named_children():
            self.add_module(name, child)
        self.adapter, self.merges = adapter(model, layout), layout.schedule.vision
        self.adapter.parts = part
        self.match = layout.schedule.match
        self.layers: Sequence[int] = range(self.adapter.depth)
        with torch.no_grad():  # all states now: nothing of them may be traced
            self.states = [self.adapter.start(Grid(*layout.grid))]
            for merge in self.merges:
                before = self.states[-1]
                after = merge_grid(before.grid, merge, self.adapter.multiple_of)
                self.states.append(self.adapter.follow(before, merge, after))

    def trace_once(self) -> tuple[Run, ...]:
        """Run only the first layer of each run of equal ones from now on -> the runs to stamp."""
        tower, count = self.adapter, self.adapter.depth
        starts = {0, *(m.layer for m in self.merges), *(i + 1 for i in tower.taps)}
        self.layers = [i for i in range(count) if i in starts or tower.kind(i) != tower.kind(i - 1)]
        lasts = [*(i - 1 for i in self.layers[1:]), count - 1]
        names = {id(m): name for name, m in self.named_modules()}
        name = names[id(tower.layers)]
        return tuple(Run(a, b, name) for a, b in zip(self.layers, lasts, strict=True))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Run the tower; merges stand before their layer."""
        tower, state = self.adapter, self.states[0]
        dtype = next(tower.layers.parameters()).dtype
        x = tower.order(tower.embed(pixel_values.to(dtype), state), state)
        lasts = [*(i - 1 for i in self.layers[1:]), tower.depth - 1]
        taps: list[torch.Tensor] = []
        for layer, last in zip(self.layers, lasts, strict=True):
            for i, merge in enumerate(self.merges):
                if merge.layer == layer:
                    x, taps = self._merge(x, taps, i)
                    state = self.states[i + 1]
            x = mark(tower.block(layer, mark(x, layer, end=False), state), layer, end=True)
            if last in tower.taps:
                taps.append(tower.raster(x, state))
        features = tower.project(tower.raster(x, state), taps, state.grid)
        return tower.pack(features, state.grid)

    def _merge(self, x: torch.Tensor, taps: list[torch.Tensor], i: int):
        """OIM step i on the tokens and on what was tapped before."""
        tower, before, after = self.adapter, self.states[i], self.states[i + 1]
        step = before.grid, after.grid, self.merges[i], tower.prefix, self.match
        taps = [merge_tokens(t, *step) for t in taps]
        return tower.order(merge_tokens(tower.raster(x, before), *step), after), taps
