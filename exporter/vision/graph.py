"""The vision graph, one loop for all families: embed, the tower's layers with OIM between them, project.

Letters: N graph entries (tiles or images), n visual tokens of an entry, D width.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from ...engines.bundle.joins import legal
from ...engines.bundle.layout import Layout
from ...engines.bundle.schedule import Prune
from ...plugins.scores.base import Heads, Score, Tower
from ..ops.attention import heads_of
from ..ops.layer_marks import Run, bordered, runs_of
from ..ops.mirror import mirror
from ..ops.riding import parted
from ..planning.grid import Grid, merge_grid
from ..planning.methods import measured_score
from .adapter import GridState, VisionAdapter
from .exit import Exit
from .oim import FixedStep, MatchedStep, Step, restored


class VisionGraph(nn.Module):
    """pixel_values float32 [N, ...] -> visual_embeds [N, n, D], merging on the way or at the exit."""

    def __init__(self, model: nn.Module, adapter: type[VisionAdapter], layout: Layout):
        super().__init__()
        part = mirror(model, adapter.modules)
        for name, child in part.named_children():
            self.add_module(name, child)
        self.adapter, self.merges = adapter(model, layout), layout.schedule.vision
        self.adapter.parts = part
        self.match, self.restore = layout.schedule.match, layout.schedule.restore
        self.exit = None
        if exit := layout.schedule.exit:
            block, (h, w) = self.adapter.multiple_of, layout.grid
            self.exit = Exit(exit, Grid(h // block.h, w // block.w))
        self.score = measured_score(layout.schedule)
        self.looks = self.score.layers(self.adapter.depth) if self.score else ()
        first = layout.schedule.language[0] if self.score else Prune(layer=0, keep=0)
        self.keep = first.keep // (layout.images * layout.tiles) if self.score else 0
        self.merged = first.layer == 0  # else those that were merged would be seen twice
        self.layers: Sequence[int] = range(self.adapter.depth)
        self.gaps: frozenset[int] = frozenset()
        with torch.no_grad():  # all states now: nothing of them may be traced
            self.states = [self.adapter.start(Grid(*layout.grid))]
            for merge in self.merges:
                before = self.states[-1]
                multiple = Grid(1, 1) if self.restore else self.adapter.multiple_of
                after = merge_grid(before.grid, merge, multiple)
                self.states.append(self.adapter.follow(before, merge, after))

    def trace_once(self, alone: bool = False) -> tuple[Run, ...]:
        """Run only the first layer of each kind from now on, and gaps -> the runs to stamp.

        Args:
            alone: run the first layer of every run; nothing stands for another run's.
        """
        tower, layers = self.adapter, range(self.adapter.depth)
        breaks = {*(m.layer for m in self.merges), *(i + 1 for i in tower.taps), *self.looks}
        states = [sum(m.layer <= i for m in self.merges) for i in layers]
        kinds = [(tower.kind(i), states[i] if tower.reads_tables else None) for i in layers]
        lengths = [tower.prefix + self.states[n].grid.tokens for n in states]
        name = next(name for name, m in self.named_modules() if m is tower.layers)
        runs = runs_of(breaks, name, lengths, kinds, alone)
        self.layers = [run.first for run in runs]
        self.gaps = frozenset(run.first for run in runs if run.like is not None)
        return runs

    def forward(self, pixel_values: torch.Tensor) -> Any:
        """Run the tower; an OIM step stands before its layer."""
        return self.through(pixel_values)[0]

    def through(
        self, pixel_values: torch.Tensor, joins: Sequence[np.ndarray] = ()
    ) -> tuple[torch.Tensor, list[MatchedStep]]:
        """Run the tower -> visual tokens, and the steps that matched.

        Args:
            pixel_values: float32 [N, ...].
            joins: of each matched step what it joins in place of its best, [N, lines, tokens]; what no step
                can join is not taken.
        """
        tower, state = self.adapter, self.states[0]
        weights = (getattr(module, "weight", None) for module in tower.layers.modules())
        dtype = next(weight.dtype for weight in weights if weight is not None)
        x = tower.order(tower.embed(pixel_values.to(dtype), state), state)
        lasts = [*(i - 1 for i in self.layers[1:]), tower.depth - 1]
        taps: list[torch.Tensor] = []
        done: list[tuple[Step, torch.Tensor, torch.Tensor]] = []
        heads: dict[int, Heads] = {}
        for layer, last in zip(self.layers, lasts, strict=True):
            for i, merge in enumerate(self.merges):
                if merge.layer == layer:
                    x, state, step = self._merge(x, state, i, joins[i : i + 1])
                    done.append(step)
                    if not self.restore:
                        taps = [self._merged(tap, step[0]) for tap in taps]
            block = partial(tower.block, layer, state=state)
            if layer in self.looks:
                heads[layer] = self._in_raster(heads_of(partial(block, x)), state)
            x = bordered(block, layer, layer in self.gaps, x)
            if last in tower.taps:
                taps.append(self._leaving(tower.raster(x, state), done))
        x = self._leaving(tower.raster(x, state), done)
        state = self.states[0] if self.restore else state
        features = tower.project(x, taps, state.grid)
        if self.score:
            looked = tuple(heads[layer] for layer in self.looks)
            features = self._measured(self.score, features, looked, state.grid)
        grid = state.grid
        if self.exit:
            block, left = tower.multiple_of, self.exit.left
            features, grid = self.exit(features), Grid(left.h * block.h, left.w * block.w)
        matched = [step for step, *_ in done if isinstance(step, MatchedStep)]
        return tower.pack(features, grid), matched

    def _in_raster(self, heads: Heads, state: GridState) -> Heads:
        """Queries and keys [N, H, prefix + h * w, d] in raster order."""

        def order(x: torch.Tensor) -> torch.Tensor:
            rows = self.adapter.raster(x.transpose(1, 2).flatten(2), state)
            return rows.unflatten(2, (x.shape[1], -1)).transpose(1, 2)

        return Heads(order(heads.query), order(heads.key), heads.scale)

    def _measured(
        self, score: Score, features: torch.Tensor, heads: tuple[Heads, ...], grid: Grid
    ) -> torch.Tensor:
        """Visual tokens [N, n, D] and what was measured behind them, [N, n, D + 2]."""
        block = self.adapter.multiple_of
        width = self.adapter.model.config.text_config.hidden_size

        def cells(x: torch.Tensor) -> torch.Tensor:
            x = x.unflatten(1, (grid.h // block.h, block.h, grid.w // block.w, block.w))
            return x.mean((2, 4)).flatten(1, 2)

        tokens, deeper = features[..., :width], features[..., width:]
        places = grid.h // block.h, grid.w // block.w
        tower = Tower(heads, self.adapter.prefix, tokens, places, cells)
        found = score.measure(tower, self.keep)
        # about 1: attention would be among the subnormals of half precision
        scaled = found.scores * features.shape[1]
        if found.tokens is not None and self.merged:
            tokens = found.tokens
        return torch.cat([tokens, deeper, parted(scaled, features.dtype)], -1)

    def _merge(self, x: torch.Tensor, state: GridState, i: int, joins: Sequence[np.ndarray]):
        """OIM step i -> tokens in the layers' order, their state, and what it takes to undo the step."""
        tower, after = self.adapter, self.states[i + 1]
        x = tower.raster(x, state)
        grids = state.grid, after.grid, self.merges[i]
        step: Step = FixedStep(*grids)
        if self.match:
            spans = tower.spans(state, self.merges[i].axis)
            step = MatchedStep(*grids, x[:, tower.prefix :], spans)
            for given in joins:
                _told(step, given)
            after = tower.matched(state, step, after)
        merged = self._merged(x, step)
        undo = step, x[:, tower.prefix :], merged[:, tower.prefix :]
        return tower.order(merged, after), after, undo

    def _merged(self, x: torch.Tensor, step: Step) -> torch.Tensor:
        """[N, prefix + h * w, D] -> [N, prefix + h' * w', D]: the prefix stays as it is."""
        return self._grid_only(x, step.merge)

    def _leaving(self, x: torch.Tensor, done: list) -> torch.Tensor:
        """What the projector sees of tokens in raster order: the full grid where it is given back."""
        return self._grid_only(x, partial(restored, done=done)) if self.restore else x

    def _grid_only(
        self, x: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        prefix = self.adapter.prefix
        grid = change(x[:, prefix:])
        return torch.cat([x[:, :prefix], grid], 1) if prefix else grid


def _told(step: MatchedStep, joins: np.ndarray) -> None:
    """Let a step join what it is told, where a step can."""
    if joins.size != step.best.numel():
        return
    lines = torch.from_numpy(joins.reshape(step.best.shape)).to(step.best)
    if legal(*(x.numpy(force=True) for x in (lines, step.best, step.likeness))):
        step.take(lines)


class MatchedVisionGraph(VisionGraph):
    """VisionGraph that tells what its steps join: an export of a schedule that matches."""

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Visual tokens and the joins of each step, as `join_names` calls them."""
        features, steps = self.through(pixel_values)
        return features, *(step.told(step.link) for step in steps)
