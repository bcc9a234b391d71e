"""A ratio of the first token: tower and prefill together, shared so that least accuracy is lost.

What each of them costs was measured on validation, each alone (LOST_IN_TOWER, LOST_IN_PREFILL); together
they are taken to cost the sum. The tower is shortened by OIM's most similar neighbours, with its grid given
back, so that the language model's half does not hang on the tower's.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...engines.bundle.schedule import Merge, Schedule
from ...errors import LuvcError
from .defaults import DEFAULTS, SolverOptions
from .problem import Problem
from .solver import TOLERANCE, most_pruned, solve
from .tower import tower_choices, tower_steps

Curve = tuple[tuple[float, float], ...]

LOST_IN_TOWER: Curve = ((1.0, 0.0), (1.37, 0.2), (1.53, 0.5), (1.7, 2.0))
"""Ratio of the tower and points of accuracy lost, matched and restored (docs/how-luvc-works.md)."""
LOST_IN_PREFILL: Curve = ((1.0, 0.0), (2.0, 0.2), (3.0, 1.5), (4.0, 6.9))
"""The same of the prefill, under the usual score (docs/accuracy.md).

Behind the last point a curve goes on as between the last two.
"""


@dataclass(frozen=True)
class Share:
    """One way to share a ratio of the first token.

    Attributes:
        merges: OIM steps in the tower.
        prefill: ratio that is left for the language model.
        lost: points of accuracy that both may cost.
    """

    merges: tuple[Merge, ...]
    prefill: float
    lost: float


def solve_first_token(
    problem: Problem, ratio: float, options: SolverOptions = DEFAULTS
) -> Schedule:
    """The schedule whose tower and prefill together are `ratio` times less work.

    Args:
        problem: the layout, and what its work is: FLOPs, or milliseconds.
        ratio: baseline / compressed work of both; the schedule's `ratio` is this.
        options: of the solver; a tower ratio of theirs is taken as it is.

    Raises:
        LuvcError: the method makes something smaller instead, or no schedule lands in [ratio, 1.02 ratio];
            names what is feasible.
    """
    check_shared(options)
    if ratio == 1 and options.tower_ratio == 1:
        return solve(problem, ratio, options)
    options = sharing(options)
    for share in sorted(_shares(problem, ratio, options), key=lambda s: s.lost):
        try:
            found = solve(problem, share.prefill, options, share.merges)
        except LuvcError:  # counts are whole: not every ratio can be had
            continue
        if ratio <= problem.ratios(found).both <= ratio * TOLERANCE:
            return found.model_copy(update={"ratio": ratio})
    raise LuvcError(_refusal(problem, ratio, options))


def sharing(options: SolverOptions) -> SolverOptions:
    """The options under which a ratio is shared: the tower gives its grid back, and matches on its own."""
    return replace(options, restore=True, match=options.match or options.tower_ratio <= 1)


def check_shared(options: SolverOptions, ratio_of: str = "first-token") -> None:
    """Refuse options that share a ratio between tower and language model in their own way.

    Raises:
        LuvcError: names them.
    """
    if options.smaller != "none" or options.oim_share:
        what = f"--oim-share {options.oim_share:g}" if options.oim_share else "this method"
        raise LuvcError(
            f"--ratio-of {ratio_of} shares the ratio between tower and language model by itself, and {what} "
            "does, too: leave that out, or use --ratio-of flops"
        )


def points_lost(curve: Curve, ratio: float) -> float:
    """Points of accuracy lost at a ratio, between what was measured straight in its logarithm."""
    last = max(1, min(bisect_right(curve, (ratio, math.inf)), len(curve) - 1))
    (x, low), (y, high) = curve[last - 1 : last + 1]
    return low + (high - low) * math.log(ratio / x) / math.log(y / x)


def _shares(problem: Problem, ratio: float, options: SolverOptions) -> Iterator[Share]:
    """Every way to shorten the tower, with what it leaves for the language model to save."""
    plain, whole = Schedule(), problem.prefill_work(Schedule())
    for merges in towers(problem, options):
        tower = shortened_tower(merges, options)
        left = (problem.vision_work(plain) + whole) / ratio - problem.vision_work(tower)
        if left <= 0:
            continue
        prefill = max(1.0, whole / left)
        # in FLOPs whatever the work is: that is what costs answers, not time
        shorter = problem.vision_flops(plain) / problem.vision_flops(tower)
        lost = points_lost(LOST_IN_TOWER, shorter) + points_lost(LOST_IN_PREFILL, prefill)
        yield Share(merges, prefill, lost)


def towers(problem: Problem, options: SolverOptions) -> list[tuple[Merge, ...]]:
    """OIM's steps that may be taken: none and all, or those of the tower ratio that was asked for."""
    if options.tower_ratio > 1:
        return [tower_steps(problem, options.tower_ratio, options.match)]
    return [(), *(choice.merges for choice in tower_choices(problem, options.match))]


def shortened_tower(merges: tuple[Merge, ...], options: SolverOptions) -> Schedule:
    """The schedule of a tower alone."""
    return Schedule(vision=merges, match=options.match, restore=True) if merges else Schedule()


def _refusal(problem: Problem, ratio: float, options: SolverOptions) -> str:
    """Why no schedule has this ratio, with the largest that one has."""
    fewest = problem.prefill_work(most_pruned(problem, options))
    both = problem.vision_work(Schedule()) + problem.prefill_work(Schedule())
    found = (shortened_tower(merges, options) for merges in towers(problem, options))
    largest = max(both / (problem.vision_work(tower) + fewest) for tower in found)
    if ratio > largest:
        return (
            f"ratio {ratio:g}x of the first token is not feasible for this layout: the largest feasible is "
            f"{math.floor(largest * 100) / 100:g}x (tower and prefill together); ask for that or less"
        )
    return (
        f"no schedule lands within 2 % above {ratio:g}x of the first token: token counts are too coarse; ask "
        "for a little more or less, or give a --schedule"
    )
