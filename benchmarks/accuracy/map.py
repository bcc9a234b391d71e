"""What tower and language model may lose together: exact match over the ratios of both, for a map.

python -m benchmarks.accuracy.map tools/pocket/model --name pocket

OIM shortens the tower, whose exit gives the grid back, at the places that the solver takes; the SPU's
defaults shorten the language model. Beside the map: fixed groups in place of the most similar neighbours, and
one step at other depths of the tower. A run that was stopped goes on with the same command.
"""

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated

import typer

from luvc.engines.bundle.schedule import Schedule
from luvc.errors import LuvcError
from luvc.exporter.planning.defaults import DEFAULTS
from luvc.exporter.planning.solver import solve
from luvc.exporter.planning.tower import tower_choices
from luvc.tools.journal import Journal

from ..files import write_json
from . import plans, setup
from .methods import Method
from .results import RESULTS, told
from .study import Study, entry

TOWERS = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
"""Ratios of the tower's FLOPs that are asked for; grids are whole, so that others come of them."""
PREFILLS = (1.0, 1.5, 2.0, 3.0, 4.0)
"""Ratios of the visual tokens, in the mean over the language model's layers."""
FIXED = (1.4, 1.8)
DEPTHS = (0.125, 0.375, 0.625, 0.875)
"""Where one step stands, as parts of the tower's layers."""
ONE_STEP = 1.25
"""Ratio of the tower under one step at the first of these."""


def tower(ratio: float, match: bool = True) -> Method:
    """A shortened tower, given back, and the SPU's defaults behind it."""
    options = DEFAULTS
    if ratio > 1:
        options = replace(DEFAULTS, restore=True, match=match, tower_ratio=ratio)
    how = "matched" if match else "fixed"
    return Method(f"{how} {ratio:g}", "map", "", plans.solved(options))


def one_step(depth: float) -> Method:
    """One matched step on both axes at a depth of the tower, given back; the language model whole."""

    def plan(budget: plans.Budget, _: int) -> Schedule:
        problem = budget.problem
        single = [c for c in tower_choices(problem, True) if c.steps == 1 and c.ratio >= ONE_STEP]
        if not single:
            raise LuvcError(f"no single step shortens this tower by {ONE_STEP:g}x")
        steps = min(single, key=lambda c: c.ratio).merges
        layer = max(1, round(problem.encoder.layers * depth))
        moved = tuple(merge.model_copy(update={"layer": layer}) for merge in steps)
        return solve(problem, 1.0, DEFAULTS).model_copy(
            update={"vision": moved, "match": True, "restore": True}
        )

    return Method(f"one step at {depth:g}", "map", "", plan)


def points(towers: Sequence[float], prefills: Sequence[float]) -> Iterator[tuple[Method, float]]:
    """Every method with the prefill's ratios; those of one tower follow each other.

    Args:
        towers: ratios; beside all of them stands what is no part of the map.
        prefills: ratios.
    """
    for asked in towers:
        yield from ((tower(asked), ratio) for ratio in prefills)
    if towers != TOWERS:
        return
    for asked in FIXED:
        yield from ((tower(asked, match=False), ratio) for ratio in PREFILLS[::2])
    yield from ((one_step(depth), 1.0) for depth in DEPTHS)


def measured(study: Study, method: Method, ratio: float) -> dict:
    """A point: what was right, and the ratios that came of those that were asked."""
    found = entry(study, method, ratio, 0)
    if "why" not in found:
        schedule = Schedule.model_validate(found["schedule"])
        problem = study.problems[1]
        whole, left = problem.vision_flops(Schedule()), problem.vision_flops(schedule)
        found |= {"tower": whole / left, "prefill": problem.visual_tokens(()) / found["mean"]["1"]}
        found["lengths"] = [f"{g.h}x{g.w}" for g in problem.grids(schedule)]
    return found


def rows(
    study: Study,
    towers: Sequence[float],
    prefills: Sequence[float],
    once: Callable[[str, Callable[[], dict]], dict],
) -> Iterator[dict]:
    """All points; the unmodified model is always the first."""
    last = ""
    whole = tower(1.0), 1.0
    asked = {f"{m.name} at {r:g}": (m, r) for m, r in (whole, *points(towers, prefills))}
    for name, (method, ratio) in asked.items():
        if method.name != last:
            study.forget()
            last = method.name
        yield once(name, partial(measured, study, method, ratio))


def run(
    model: setup.Model,
    name: Annotated[str, typer.Option(help="Of the model, in the file's name and on the page.")],
    split: Annotated[str, typer.Option(help="validation, or test.")] = "validation",
    limit: Annotated[int, typer.Option(help="Questions of the split.")] = 600,
    towers: Annotated[
        list[float] | None, typer.Option("--tower", help="Repeat; default all.")
    ] = None,
    prefills: Annotated[
        list[float] | None, typer.Option("--prefill", help="Repeat; default all.")
    ] = None,
    device: setup.Device = "auto",
    batch: setup.Batch = None,
    workers: setup.Workers = 0,
    image_size: setup.ImageSize = None,
    output: setup.Output = RESULTS,
) -> None:
    """Measure every point; `python -m benchmarks.accuracy.report` then draws the map."""
    echo = setup.stopwatch()
    study, head = setup.load(model, split, limit, device, batch, workers, image_size)
    asked = tuple(towers or TOWERS), tuple(prefills or PREFILLS)
    head |= {"name": name, "towers": asked[0], "prefills": asked[1]}
    file = f"accuracy_map_{name}" + ("" if split == "validation" else f"_{split}")
    journal = Journal(output / f"{file}.partial.jsonl", head, anew=True)
    found = []
    for row in rows(study, *asked, journal.once):
        found.append(row)
        echo(f"{row['method']} and {row['ratio']:g}x: {told(row, limit)}")
    head = {"date": datetime.date.today().isoformat()} | head
    write_json(output / f"{file}.json", head | {"rows": found})
    journal.close()
    echo(f"wrote {output}")


if __name__ == "__main__":
    typer.run(run)
