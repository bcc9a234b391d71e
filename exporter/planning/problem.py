"""One layout of one model as the schedule solver sees it, and schedules held against it."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from ...engines.bundle.layout import Ratios
from ...engines.bundle.schedule import Axis, Merge, Reduction, Schedule, Scope, groups_of
from ...errors import LuvcError
from ...plugins.scores.base import Sizes
from . import flops
from .grid import Grid, merge_grid, merged_grids, thinned, windows
from .methods import score_of, spec_of


@dataclass(frozen=True)
class Problem:
    """One layout of one model, as the solver sees it.

    Attributes:
        decoder: language model shape.
        encoder: vision tower shape.
        grid: vision tokens of a tile before merging.
        multiple: lengths the merged grid must be multiples of, for the projector.
        tiles: tiles in one prompt, images * tiles per image.
        images: images in one prompt.
        text_tokens: text tokens of the reference prompt.
        count: visual tokens of one image after some OIM steps or on a smaller grid, where the projector
            does not just join `shuffle` grid tokens (packed tiles, padding).
        asked: the layout at the size that was asked for, where the pictures are made smaller than that.
    """

    decoder: flops.DecoderShape
    encoder: flops.EncoderShape
    grid: Grid
    multiple: Grid
    tiles: int
    images: int = 1
    text_tokens: int = 64
    count: Callable[[tuple[Merge, ...], Reduction | None], int] | None = None
    asked: "Problem | None" = None

    @property
    def baseline(self) -> "Problem":
        """What ratios are against: the layout at the size that was asked for."""
        return self.asked or self

    @property
    def side(self) -> Grid:
        """Visual tokens of a tile at ratio 1."""
        return Grid(self.grid.h // self.multiple.h, self.grid.w // self.multiple.w)

    def visual_tokens(self, vision: tuple[Merge, ...], exit: Reduction | None = None) -> int:
        """V of a prompt after OIM steps that last (Schedule.lasting), or on a smaller grid."""
        if self.count is not None:
            return self.images * self.count(vision, exit)
        if exit:
            return self.tiles * exit.rows * exit.columns
        return self.tiles * self.grids(Schedule(vision=vision))[-1].tokens // self.encoder.shuffle

    def leaving(self, schedule: Schedule) -> Grid:
        """The grid of a tile that all behind the projector sees, in vision tokens.

        Of a smaller grid it is what the projector would have made it of.
        """
        if schedule.exit:
            rows, columns = schedule.exit.rows, schedule.exit.columns
            return Grid(rows * self.multiple.h, columns * self.multiple.w)
        return self.grid if schedule.restore else self.grids(schedule)[-1]

    @property
    def spans(self) -> dict[Axis, tuple[int, ...]]:
        """Lengths of the tower's windows along each axis; the whole axis where it has none."""
        side, grid = math.isqrt(self.encoder.window), self.grid
        return {"height": windows(grid.h, side or grid.h), "width": windows(grid.w, side or grid.w)}

    def step_multiple(self, schedule: Schedule) -> Grid:
        """Lengths that OIM's grids must be multiples of: any, where the projector never sees them."""
        return Grid(1, 1) if schedule.restore else self.multiple

    def grids(self, schedule: Schedule) -> tuple[Grid, ...]:
        """The grid inside each vision layer."""
        multiple = self.step_multiple(schedule)
        return merged_grids(self.grid, schedule.vision, multiple, self.encoder.layers)

    def step_grids(self, schedule: Schedule) -> tuple[Grid, ...]:
        """The grid before the first OIM step and after each."""
        found, multiple = [self.grid], self.step_multiple(schedule)
        for merge in schedule.vision:
            found.append(merge_grid(found[-1], merge, multiple))
        return tuple(found)

    def prefill_work(self, schedule: Schedule) -> float:
        """Work of the language prefill under a schedule, scoring included; FLOPs here."""
        V = self.visual_tokens(schedule.lasting, schedule.exit)
        visual = schedule.visual_per_layer(self.decoder.layers, V)
        beside = self._scoring(schedule, V) + flops.layer_inputs(self.decoder, V + self.text_tokens)
        return flops.prefill(self.decoder, visual, self.text_tokens, beside)

    def _scoring(self, schedule: Schedule, V: int) -> float:
        """FLOPs of the stages' scores."""
        score, shape = score_of(schedule.score), self.decoder
        found = 0.0
        for prune in schedule.language:
            if prune.keep:
                before = max(0, prune.layer - 1)
                sizes = Sizes(
                    tokens=V,
                    sequence=V + self.text_tokens,
                    groups=groups_of(schedule.scope, self.images, self.tiles),
                    keep=prune.keep,
                    hidden=shape.hidden,
                    heads=shape.heads,
                    kv_heads=shape.kv_heads,
                    head_dim=shape.head_dim,
                    layer=flops.decoder_layers(shape, before, before, V + self.text_tokens),
                )
                found += score.flops(sizes)
            V = prune.keep
        return found

    def check_groups(self, visual: int, scope: Scope) -> None:
        """Refuse a scope whose parts have unequal shares of the `visual` tokens.

        Raises:
            LuvcError: says which scopes there are.
        """
        groups = groups_of(scope, self.images, self.tiles)
        if visual % groups:
            raise LuvcError(
                f"--scope {scope}: {visual} visual tokens do not divide into {groups} {scope}s alike, as "
                "the model packs them: use --scope image or prompt"
            )

    def vision_flops(self, schedule: Schedule) -> float:
        """FLOPs of the vision tower and projector for all tiles of a prompt."""
        tokens = tuple(g.tokens for g in self.grids(schedule))
        left = self.grid.tokens if schedule.restore else None
        tile = flops.vision(self.encoder, self.grid.tokens, tokens, left)
        return self.tiles * (tile + self.merge_flops(schedule) + self.exit_flops(schedule.exit))

    def vision_work(self, schedule: Schedule) -> float:
        """Work of the vision tower and projector under a schedule; FLOPs here."""
        return self.vision_flops(schedule)

    def merge_flops(self, schedule: Schedule) -> float:
        """FLOPs of OIM's own steps on one tile, and of giving the grid back."""
        how = {"match": schedule.match, "restore": schedule.restore}
        counts = [grid.tokens for grid in self.step_grids(schedule)]
        return sum(
            flops.merging(self.encoder, before, after, **how)
            for before, after in itertools.pairwise(counts)
        )

    def exit_flops(self, exit: Reduction | None) -> float:
        """FLOPs of a smaller grid of one tile's visual tokens."""
        if exit is None:
            return 0.0
        side = self.side.h, self.side.w
        return flops.smaller_grid(self.encoder, side, (exit.rows, exit.columns))

    def ratios(self, schedule: Schedule) -> Ratios:
        """Baseline / compressed work."""
        vision = self.baseline.vision_work(Schedule()), self.vision_work(schedule)
        prefill = self.baseline.prefill_work(Schedule()), self.prefill_work(schedule)
        both = [v + p for v, p in zip(vision, prefill, strict=True)]
        return Ratios(
            vision=vision[0] / vision[1], prefill=prefill[0] / prefill[1], both=both[0] / both[1]
        )


def check_schedule(problem: Problem, schedule: Schedule) -> Schedule:
    """A schedule of one's own, held against the model; returned with the ratio it achieves.

    Raises:
        LuvcError: a layer, group, keep or score that this model and layout do not have.
    """
    layers, shape = problem.decoder.layers, problem.decoder
    for prune in schedule.language:
        if prune.layer >= layers:
            raise LuvcError(
                f"schedule: language layer {prune.layer} does not exist, the model has {layers} "
                f"(0 to {layers - 1})"
            )
        if prune.layer >= shape.prunable:
            raise LuvcError(
                f"schedule: nothing can be dropped before language layer {prune.layer}: layers "
                f"{shape.prompted} to {layers - 1} read keys and values that layers up to "
                f"{shape.prompted - 1} keep, and layer {shape.prunable - 1} is the first of those; use that "
                "layer or an earlier one"
            )
    _check_merges(problem, schedule)
    _check_exit(problem, schedule.exit)
    V = problem.visual_tokens(schedule.lasting, schedule.exit)
    groups = groups_of(schedule.scope, problem.images, problem.tiles)
    problem.check_groups(V, schedule.scope)
    for prune in schedule.language:
        if prune.keep >= V:
            raise LuvcError(
                f"schedule: keep {prune.keep} before layer {prune.layer} prunes nothing, {V} visual "
                "tokens arrive there; keep fewer or drop the entry"
            )
        if prune.keep % groups:
            raise LuvcError(
                f"schedule: keep {prune.keep} is not a multiple of {groups} {schedule.scope}s, which its "
                "scope needs"
            )
        V = prune.keep
    ratio = problem.ratios(schedule).prefill
    score = spec_of(score_of(schedule.score))
    return schedule.model_copy(update={"ratio": max(1.0, ratio), "score": score})


def _check_merges(problem: Problem, schedule: Schedule) -> None:
    grid, layers = problem.grid, problem.encoder.layers
    multiple, spans = problem.step_multiple(schedule), problem.spans
    if schedule.restore and not schedule.vision:
        raise LuvcError(
            "schedule: restore gives back the grid that OIM's steps in vision merged, and there are none: "
            "leave it out or add steps"
        )
    for merge in schedule.vision:
        if merge.layer >= layers:
            raise LuvcError(
                f"schedule: vision layer {merge.layer} does not exist, the tower has {layers} "
                f"(0 to {layers - 1})"
            )
        length = grid.length(merge.axis)
        after = merge_grid(grid, merge, multiple)
        if merge.group > length or after == grid:
            raise LuvcError(
                f"schedule: merging groups of {merge.group} along the {merge.axis} of {length} tokens "
                "changes nothing; use a smaller group"
            )
        if schedule.match:
            spans[merge.axis] = thinned(spans[merge.axis], length - after.length(merge.axis))
        grid = after


def _check_exit(problem: Problem, exit: Reduction | None) -> None:
    if exit is None:
        return
    side, left = problem.side, Grid(exit.rows, exit.columns)
    if left.h > side.h or left.w > side.w or left == side:
        raise LuvcError(
            f"schedule: exit makes a grid of {left.h}x{left.w} of the {side.h}x{side.w} visual tokens of a "
            "tile, which are no fewer: give fewer rows or columns"
        )
