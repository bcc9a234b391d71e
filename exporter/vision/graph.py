"""The vision graph, one loop for all families: embed, the tower's layers with OIM between them, project.

Letters: N graph entries (tiles or images), n visual tokens of an entry, D width.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from ...engines.bundle.layout import Layout
from ..ops.layer_marks import Run, bordered, runs_of
from ..ops.mirror import mirror
from ..planning.grid import Grid, merge_grid
from .adapter import VisionAdapter
from .oim import merge_tokens


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
        self.gaps: frozenset[int] = frozenset()
        with torch.no_grad():  # all states now: nothing of them may be traced
            self.states = [self.adapter.start(Grid(*layout.grid))]
            for merge in self.merges:
                before = self.states[-1]
                after = merge_grid(before.grid, merge, self.adapter.multiple_of)
                self.states.append(self.adapter.follow(before, merge, after))

    def trace_once(self, alone: bool = False) -> tuple[Run, ...]:
        """Run only the first layer of each kind from now on, and gaps -> the runs to stamp.

        Args:
            alone: run the first layer of every run; nothing stands for another run's.
        """
        tower, layers = self.adapter, range(self.adapter.depth)
        breaks = {*(m.layer for m in self.merges), *(i + 1 for i in tower.taps)}
        states = [sum(m.layer <= i for m in self.merges) for i in layers]
        kinds = [(tower.kind(i), states[i] if tower.reads_tables else None) for i in layers]
        lengths = [tower.prefix + self.states[n].grid.tokens for n in states]
        name = next(name for name, m in self.named_modules() if m is tower.layers)
        runs = runs_of(breaks, name, lengths, kinds, alone)
        self.layers = [run.first for run in runs]
        self.gaps = frozenset(run.first for run in runs if run.like is not None)
        return runs

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Run the tower; an OIM step stands before its layer."""
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
            block = partial(tower.block, layer, state=state)
            x = bordered(block, layer, layer in self.gaps, x)
            if last in tower.taps:
                taps.append(tower.raster(x, state))
        features = tower.project(tower.raster(x, state), taps, state.grid)
        return tower.pack(features, state.grid)

    def _merge(self, x: torch.Tensor, taps: list[torch.Tensor], i: int):
        """OIM step i on the tokens and on what was tapped before."""
        tower = self.adapter
        before, after = self.states[i : i + 2]
        step = before.grid, after.grid, self.merges[i], tower.prefix, self.match
        taps = [merge_tokens(t, *step) for t in taps]
        return tower.order(merge_tokens(tower.raster(x, before), *step), after), taps
