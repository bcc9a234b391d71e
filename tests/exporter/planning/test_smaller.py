"""Smaller grids for a ratio: the nearest above, what is refused, and schedule files of them."""

import json
import math
from dataclasses import replace

import pytest

from luvc.engines.bundle.schedule import Merge, Prune, Reduction, Schedule
from luvc.errors import LuvcError
from luvc.exporter import ExportConfig
from luvc.exporter import cli_plan as plan
from luvc.exporter.planning.grid import Grid
from luvc.exporter.planning.methods import find
from luvc.exporter.planning.problem import Problem, check_schedule
from luvc.exporter.planning.schedule_file import read_schedule
from luvc.exporter.planning.solver import solve
from luvc.exporter.timing.measured_costs import StageCosts, TimedProblem

from .test_solver import SHAPES, independent_flops, problem

POOL, DCT = find("pool").options, find("dct").options
EXIT = Reduction(how="pool", rows=3, columns=4)


def work(p: Problem, tokens: int) -> float:
    """Prefill FLOPs with so many visual tokens of each tile."""
    return independent_flops(replace(p, grid=Grid(2, 2 * tokens)), Schedule())


def like(side: Grid, h: int, w: int) -> bool:
    return 2 / 3 - 1e-9 <= (h / side.h) / (w / side.w) <= 3 / 2 + 1e-9


@pytest.mark.parametrize("options", [POOL, DCT], ids=["pool", "dct"])
@pytest.mark.parametrize("ratio", [1.01, 1.3, 2, 3, 5.5])
@pytest.mark.parametrize("shape", [("InternVL3-1B", (32, 32)), ("demo", (24, 32))])
def test_the_grid_is_the_nearest_above(shape, ratio, options):
    name, grid = shape
    p = replace(problem(name, tiles=2), grid=Grid(*grid))
    side, baseline = (
        Grid(grid[0] // 2, grid[1] // 2),
        independent_flops(replace(p, grid=Grid(*grid)), Schedule()),
    )
    schedule = solve(p, ratio, options)
    exit = schedule.exit
    assert exit and exit.how == options.smaller and schedule.ratio == ratio
    assert not schedule.vision and not schedule.language
    assert like(side, exit.rows, exit.columns)
    found = p.ratios(schedule)
    assert found.prefill == pytest.approx(baseline / work(p, exit.rows * exit.columns))
    assert found.prefill >= ratio
    others = {
        h * w
        for h in range(1, side.h + 1)
        for w in range(1, side.w + 1)
        if like(side, h, w) and h * w < side.tokens and baseline / work(p, h * w) >= ratio
    }
    assert exit.rows * exit.columns == max(others)
    alike = [
        abs(math.log((h / side.h) / (w / side.w)))
        for h in range(1, side.h + 1)
        for w in range(1, side.w + 1)
        if h * w == max(others)
    ]
    here = abs(math.log((exit.rows / side.h) / (exit.columns / side.w)))
    assert here == pytest.approx(min(alike))
    assert 0.99 < found.vision < 1, "making the smaller grid is counted"


def test_measured_costs_see_the_smaller_grid():
    timed = TimedProblem(**vars(problem("demo")), costs=StageCosts(0, 1, 0, 1, 0))  # ms a token
    exit = solve(timed, 2, POOL).exit
    assert exit and 2 * (exit.rows * exit.columns + 64) <= 144 + 64 < 2.2 * (
        exit.rows * exit.columns + 64
    )


def test_what_no_grid_reaches_is_refused():
    for name in SHAPES:
        with pytest.raises(
            LuvcError, match=r"by a smaller grid \(pool\): .* give at most [\d.]+x;"
        ):
            solve(problem(name), 500, POOL)
    assert solve(problem("demo"), 1, POOL) == Schedule(ratio=1)


def test_a_schedule_file_says_it(tmp_path, command, workshop):
    schedule = Schedule(exit=EXIT)
    file = tmp_path / "schedule.json"
    file.write_text(schedule.model_dump_json())
    assert read_schedule(file) == schedule
    plain = {"exit": {"how": "pool", "rows": 3, "columns": 4}}
    file.write_text(json.dumps(plain))
    assert read_schedule(file) == schedule
    model = workshop.checkpoint(layers=3, vision_layers=1, image=112)  # 4 x 4 visual tokens
    result = command(plan, "--model", model, "--schedule", file, "--json")
    layout = json.loads(result.out)["plans"][0]["layout"]
    assert (layout["baseline_visual_tokens"], layout["visual_tokens"]) == (16, 12)
    assert layout["merged_grid"] == [6, 8] and layout["schedule"]["ratio"] > 1
    for wrong, said in (
        (plain | {"vision": [{"layer": 0, "axis": "width", "group": 2}]}, "OIM in vision leaves"),
        (plain | {"language": [{"layer": 1, "keep": 2}]}, "language prunes it"),
        ({"exit": plain["exit"] | {"how": "max"}}, "how"),
        ({"exit": plain["exit"] | {"rows": 0}}, "rows"),
    ):
        file.write_text(json.dumps(wrong))
        with pytest.raises(LuvcError, match=said):
            read_schedule(file)


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (5, 2), (1, 5)])
def test_a_grid_that_is_not_smaller_is_refused(rows, columns):
    p = replace(problem("demo"), grid=Grid(8, 8))
    exit = Reduction(how="dct", rows=rows, columns=columns)
    with pytest.raises(LuvcError, match=f"{rows}x{columns} of the 4x4 visual tokens"):
        check_schedule(p, Schedule(exit=exit))
    assert check_schedule(p, Schedule(exit=EXIT)).ratio > 1


def test_nothing_else_stands_beside_a_smaller_grid():
    with pytest.raises(ValueError, match="OIM in vision leaves unequal ones"):
        Schedule(exit=EXIT, vision=(Merge(layer=0, axis="width", group=2),))
    with pytest.raises(ValueError, match="language prunes it"):
        Schedule(exit=EXIT, language=(Prune(layer=1, keep=1),))


@pytest.mark.parametrize("method", ["pool", "dct", "downsample"])
def test_options_that_would_say_nothing_are_refused(method):
    for options, named in (
        ({"stages": (0.5,)}, "--stages"),
        ({"oim_share": 0.5, "match": True}, "--oim-match, --oim-share"),
        ({"elimination": "never"}, "--elimination"),
        ({"cutoff": 0.5}, "--method-option cutoff"),
    ):
        with pytest.raises(
            LuvcError, match=f"--method {method} .* so that {named} would say nothing"
        ):
            ExportConfig.make(model="m", method=method, **options)
    with pytest.raises(LuvcError, match="no option of method luvc"):
        ExportConfig.make(model="m", smaller=method)
    with pytest.raises(LuvcError, match="no options of the solver"):
        ExportConfig.make(model="m", solver=find(method).options)
    assert ExportConfig.make(model="m", method=method).solver == find(method).options


def test_measured_time_is_for_schedules():
    with pytest.raises(LuvcError, match="downsample changes the picture"):
        ExportConfig.make(model="m", method="downsample", ratio_of="latency")


def test_the_commands_say_it(command, workshop):
    model = workshop.checkpoint(layers=4, vision_layers=2, image=168)
    shown = command(plan, "--model", model, "--text-tokens", "8", "--method", "pool")
    text = " ".join(shown.out.split())
    assert "averages each tile's 6x6 visual tokens to 3x4; all stay to the last layer" in text
    assert "more than 2 % above the 2x asked for" in text
    refused = command(plan, "--model", model, "--method", "dct", "--stages", "0.5")
    assert refused.code == 2 and "--stages would say nothing" in refused.err
    listed = command(plan, "--methods").out
    for line in listed.splitlines():
        if any(f" {name} " in line for name in ("pool", "dct", "downsample")):
            assert "nothing more" in line and "cutoff" not in line
