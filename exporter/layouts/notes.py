"""What a plan left out or could not do, told beside its numbers."""

from collections.abc import Iterator

from ...engines.bundle.layout import Layout
from ...engines.bundle.schedule import Schedule
from ...plugins.scores.spectrum.score import Spectrum
from ..planning.defaults import SolverOptions
from ..planning.grid import merge_grid
from ..planning.methods import score_of
from ..planning.problem import Problem
from ..planning.solver import TOLERANCE, smooth_counts
from ..planning.stages import without_stage
from .planned import Planned

HOW = {
    "pool": "averages each tile's {side} visual tokens to {left}",
    "dct": "keeps the low frequencies of each tile's {side} visual tokens as {left}",
}


def notes(planned: Planned, options: SolverOptions | None) -> list[str]:
    """What a plan left out or could not do, so that nothing is silent.

    Args:
        planned: a layout with images.
        options: what its schedule was solved with; None where one was given.
    """
    layout, problem = planned.layout, planned.problem
    assert problem is not None
    s, found = layout.schedule, []
    if layout.tiles == 1 and layout.processor_options:  # those that keep its processor from cutting
        found.append("one tile per picture; the model's own processor may cut large ones into more")
    if s.exit or layout.baseline_size:
        return [*found, *_smaller_notes(layout, problem)]
    if not (s.vision or s.language):
        return [*found, "no compression: the bundle equals the unmodified model"]
    found += _merge_notes(problem, s)
    if not s.vision:
        found.append(
            f"nothing is merged in the vision tower: it does its whole work, and all {layout.visual_tokens} "
            "visual tokens enter the language model (--oim-restore --oim-match --tower-ratio 1.4 would "
            "shorten it)"
        )
    found += _stage_notes(problem, options)
    score = score_of(s.score)
    if s.scored:
        found.append(f"the visual tokens that stay are chosen by {score.described}")
    if s.scored and s.score.question:
        found.append(
            f"score {score.name} reads the question: a picture pruned for one question is kept for the "
            "whole chat, and is another for another question"
        )
    rough = [p.keep for p in s.language if p.keep not in smooth_counts(layout.visual_tokens)]
    if rough and isinstance(score, Spectrum) and score.filtered(layout.visual_tokens):
        found.append(
            f"keeps {', '.join(map(str, rough))} are not 7-smooth (slower FFT plugins): smooth counts "
            "are too coarse for this ratio"
        )
    if not s.language or s.language[-1].keep:
        found.append(f"{layout.stages[-1].visual} visual tokens stay to the last layer")
    return found


def _stage_notes(problem: Problem, options: SolverOptions | None) -> Iterator[str]:
    """Where no stage stands, and why."""
    shape = problem.decoder
    if shape.shared:
        yield (
            f"the last {shape.shared} of {shape.layers} language layers read what earlier ones keep, and run "
            f"a prompt's last token alone: tokens are dropped before one of the first {shape.prunable}, and "
            f"parts are parts of the first {shape.prompted}"
        )
    prunable = shape.prunable if shape.shared else None
    if options and (left_out := without_stage(options, shape.prompted, prunable)):
        yield (
            f"no stage at {', '.join(f'{part:g}' for part in left_out)} of {shape.prompted} "
            "language layers: it would stand before the first, or where the rest is dropped anyway"
        )


def _smaller_notes(layout: Layout, problem: Problem) -> Iterator[str]:
    """What became smaller, and how near to the ratio that is."""
    s = layout.schedule
    if layout.baseline_size:
        before, after = ("x".join(map(str, x)) for x in (layout.baseline_size, layout.image_size))
        yield f"pictures are made smaller, {after} instead of {before}; the model itself is unmodified"
    if s.exit:
        side = f"{problem.side.h}x{problem.side.w}"
        what = HOW[s.exit.how].format(side=side, left=f"{s.exit.rows}x{s.exit.columns}")
        yield f"the vision tower does its whole work, and its exit {what}; all stay to the last layer"
    if layout.ratios.prefill > TOLERANCE * s.ratio:
        yield (
            f"the language prefill's ratio is {layout.ratios.prefill:.2f}x, more than 2 % above the "
            f"{s.ratio:g}x asked for: no size in these proportions lies nearer above"
        )


def _restored_note(problem: Problem, schedule: Schedule) -> str:
    """Where OIM merges and to what, and what becomes of it."""
    steps = dict(
        zip((m.layer for m in schedule.vision), problem.step_grids(schedule)[1:], strict=True)
    )
    grids = ", ".join(f"{grid.h}x{grid.w} before layer {layer}" for layer, grid in steps.items())
    how = "the most similar neighbours" if schedule.match else "fixed groups"
    V = problem.visual_tokens(())
    return (
        f"OIM merges {how} of the tower's {problem.grid.h}x{problem.grid.w} tokens, {grids}, and its exit "
        f"gives the grid back: all {V} visual tokens enter the language model"
    )


def _merge_notes(problem: Problem, schedule: Schedule) -> Iterator[str]:
    """OIM steps that merge less than their group says; what a tower that gives its grid back does."""
    if schedule.restore:
        yield _restored_note(problem, schedule)
        return
    grid = problem.grid
    for merge in schedule.vision:
        after = merge_grid(grid, merge, problem.multiple)
        length, left = grid.length(merge.axis), after.length(merge.axis)
        exact = length - length // merge.group
        multiple = problem.multiple.length(merge.axis)
        if left != exact:
            yield (
                f"OIM before vision layer {merge.layer}: {left} of {length} tokens along the "
                f"{merge.axis} stay instead of {exact}, the projector needs a multiple of {multiple}"
            )
        elif length % merge.group:
            yield (
                f"OIM before vision layer {merge.layer}: {length} is not a multiple of "
                f"{merge.group}, the surplus along the {merge.axis} stays unmerged"
            )
        grid = after
