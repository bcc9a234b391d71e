"""A ratio spent by a smaller picture: the layout of the size whose ratio is nearest above, at ratio 1.

The baseline is the layout at the size that was asked for, or the family's usual one.
"""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from ...engines.bundle.schedule import Schedule
from ...errors import LuvcError
from ..checkpoint.family import Family
from ..planning.grid import Grid, smaller_grids
from ..planning.problem import Problem
from ..vision.adapter import ImageGeometry
from .planned import Planned, image_geometry, layout_of, problem_of

PROPORTIONS = Fraction(11, 10)
"""How far height / width of the smaller size may be from the full one's: sizes go in steps."""


def plan_smaller(family: Family, full: ImageGeometry, ratio: float, text_tokens: int) -> Planned:
    """The layout of a smaller size, with its ratios against the full one.

    Args:
        family: of the model.
        full: of the size that was asked for.
        ratio: that is asked for.
        text_tokens: of the reference prompt.

    Raises:
        LuvcError: the family takes one size only, or no smaller one reaches the ratio.
    """
    schedule = Schedule(ratio=ratio)
    if ratio == 1:
        problem = problem_of(family, full, text_tokens)
        return Planned(layout_of(family, full, problem, schedule), full, problem)
    asked, highest = f"{full.size[0]}x{full.size[1]}", 1.0
    for geometry, problem in smaller_pictures(family, full, text_tokens):
        highest = problem.ratios(schedule).prefill
        if highest >= ratio:
            return Planned(layout_of(family, geometry, problem, schedule), geometry, problem)
    kind = family.config.model_type
    below = f"no size below {asked}, in its proportions, is one that {kind} takes as it is"
    if highest > 1:
        below = f"the smallest size below {asked}, in its proportions, gives {int(highest * 100) / 100:g}x"
    raise LuvcError(
        f"ratio {ratio:g}x is not feasible by a smaller picture (downsample): {below}; ask for less, "
        "give a larger --image-size, or take another --method"
    )


def smaller_pictures(
    family: Family, full: ImageGeometry, text_tokens: int
) -> Iterator[tuple[ImageGeometry, Problem]]:
    """Every smaller size that the family's processor leaves as it is, the largest first.

    Args:
        family: of the model.
        full: of the size that was asked for.
        text_tokens: of the reference prompt.

    Raises:
        LuvcError: the family takes one size only, or the full size is none of its steps.
    """
    step = family.adapter.size_step(family.config, family.image_processor)
    (height, width), kind = full.size, family.config.model_type
    if step is None:
        raise LuvcError(
            f"--method downsample: {kind} brings every picture to {height}x{width}, so a smaller one has no "
            "fewer visual tokens; --method pool or dct makes a smaller grid of them"
        )
    if height % step[0] or width % step[1]:
        raise LuvcError(
            f"--method downsample goes down in steps of {step[0]}x{step[1]} pixels with {kind}, and "
            f"{height}x{width} is no multiple: give such an --image-size"
        )
    baseline = problem_of(family, full, text_tokens)
    for grid in smaller_grids(Grid(height // step[0], width // step[1]), PROPORTIONS):
        size = grid.h * step[0], grid.w * step[1]
        try:
            found = image_geometry(family, size, full.images, full.frames)
        except LuvcError:  # below the processor's limits: it would be enlarged
            continue
        problem = problem_of(family, found, text_tokens)
        yield replace(found, asked=full.size), replace(problem, asked=baseline)
