"""A ratio spent by a smaller grid of visual tokens at the vision tower's exit; nothing is pruned."""

from fractions import Fraction

from ...engines.bundle.schedule import Reduction, Schedule
from ...errors import LuvcError
from .defaults import SolverOptions
from .grid import Grid, smaller_grids
from .problem import Problem

PROPORTIONS = Fraction(3, 2)
"""How far rows / columns of a smaller grid may be from the full one's."""


def solve_grid(problem: Problem, ratio: float, options: SolverOptions) -> Schedule:
    """The schedule with the smaller grid whose ratio is nearest above.

    Rows and columns are whole, so the ratio may lie more than 2 % above.

    Raises:
        LuvcError: the smallest grid does not reach the ratio, or not the grid becomes smaller.
    """
    if options.smaller == "downsample":
        raise LuvcError(
            "downsample makes the picture smaller, which is no schedule: plan its layouts"
        )
    baseline, highest = problem.prefill_work(Schedule()), 1.0
    for found in sorted(_candidates(problem, ratio, options), key=_visual(problem), reverse=True):
        highest = baseline / problem.prefill_work(found)
        if highest >= ratio:
            return found
    side = problem.side
    raise LuvcError(
        f"ratio {ratio:g}x is not feasible by a smaller grid ({options.smaller}): {side.h}x{side.w} visual "
        f"tokens of a tile and {problem.text_tokens} text tokens give at most "
        f"{int(highest * 100) / 100:g}x; ask for that or less, or take another --method"
    )


def _visual(problem: Problem):
    return lambda schedule: problem.visual_tokens((), schedule.exit)


def _candidates(problem: Problem, ratio: float, options: SolverOptions) -> list[Schedule]:
    """A schedule for every smaller grid, among equally large ones the most alike first."""

    def schedule(grid: Grid) -> Schedule:
        how = {"how": options.smaller, "rows": grid.h, "columns": grid.w}
        return Schedule(ratio=ratio, exit=Reduction.model_validate(how), **options.scoring)

    return [schedule(grid) for grid in smaller_grids(problem.side, PROPORTIONS)]
