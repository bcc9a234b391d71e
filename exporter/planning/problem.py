"""One layout of one model as the schedule solver sees it, and schedules held against it."""

from collections.abc import Callable
from dataclasses import dataclass

from ...engines.bundle.layout import Ratios
from ...engines.bundle.schedule import Merge, Schedule, Scope, groups_of
from ...errors import LuvcError
from ...plugins.scores.base import Sizes
from . import flops
from .grid import Grid, merge_grid, merged_grids
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
        count: visual tokens of one image after some OIM steps, where the projector does not just join
            `shuffle` grid tokens (packed tiles, padding).
    """

    decoder: flops.DecoderShape
    encoder: flops.EncoderShape
    grid: Grid
    multiple: Grid
    tiles: int
    images: int = 1
    text_tokens: int = 64
    count: Callable[[tuple[Merge, ...]], int] | None = None

    def visual_tokens(self, vision: tuple[Merge, ...]) -> int:
        """V of a prompt after these OIM steps."""
        if self.count is not None:
            return self.images * self.count(vision)
        return self.tiles * self.grids(vision)[-1].tokens // self.encoder.shuffle

    def grids(self, vision: tuple[Merge, ...]) -> tuple[Grid, ...]:
        """The grid inside each vision layer."""
        return merged_grids(self.grid, vision, self.multiple, self.encoder.layers)

    def prefill_work(self, schedule: Schedule) -> float:
        """Work of the language prefill under a schedule, scoring included; FLOPs here."""
        V = self.visual_tokens(schedule.vision)
        visual = schedule.visual_per_layer(self.decoder.layers, V)
        return flops.prefill(self.decoder, visual, self.text_tokens, self._scoring(schedule, V))

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
        tokens = tuple(g.tokens for g in self.grids(schedule.vision))
        return self.tiles * flops.vision(self.encoder, self.grid.tokens, tokens)

    def ratios(self, schedule: Schedule) -> Ratios:
        """Baseline / compressed FLOPs."""
        vision = [self.vision_flops(s) for s in (Schedule(), schedule)]
        prefill = [self.prefill_work(s) for s in (Schedule(), schedule)]
        both = [v + p for v, p in zip(vision, prefill, strict=True)]
        return Ratios(
            vision=vision[0] / vision[1], prefill=prefill[0] / prefill[1], both=both[0] / both[1]
        )


def check_schedule(problem: Problem, schedule: Schedule) -> Schedule:
    """A schedule of one's own, held against the model; returned with the ratio it achieves.

    Raises:
        LuvcError: a layer, group, keep or score that this model and layout do not have.
    """
    layers = problem.decoder.layers
    for prune in schedule.language:
        if prune.layer >= layers:
            raise LuvcError(
                f"schedule: language layer {prune.layer} does not exist, the model has {layers} "
                f"(0 to {layers - 1})"
            )
    _check_merges(problem, schedule)
    V = problem.visual_tokens(schedule.vision)
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
    for merge in schedule.vision:
        if merge.layer >= layers:
            raise LuvcError(
                f"schedule: vision layer {merge.layer} does not exist, the tower has {layers} "
                f"(0 to {layers - 1})"
            )
        length = grid.length(merge.axis)
        after = merge_grid(grid, merge, problem.multiple)
        if merge.group > length or after == grid:
            raise LuvcError(
                f"schedule: merging groups of {merge.group} along the {merge.axis} of {length} tokens "
                "changes nothing; use a smaller group"
            )
        grid = after
