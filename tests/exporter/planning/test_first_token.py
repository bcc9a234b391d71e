"""A ratio of the first token: both parts together, shared where least is lost, refused beyond the largest."""

import itertools
import math
from dataclasses import replace

import pytest

from luvc.engines.bundle.schedule import Schedule
from luvc.errors import LuvcError
from luvc.exporter import ExportConfig, plan
from luvc.exporter.planning import first_token
from luvc.exporter.planning.defaults import DEFAULTS
from luvc.exporter.planning.first_token import (
    LOST_IN_PREFILL,
    LOST_IN_TOWER,
    points_lost,
    solve_first_token,
)
from luvc.exporter.planning.flops import DecoderShape, EncoderShape
from luvc.exporter.planning.grid import Grid
from luvc.exporter.planning.methods import METHODS
from luvc.exporter.planning.problem import Problem
from luvc.exporter.planning.tower import largest_tower_ratio, tower_choices
from luvc.tools.report.facts import solver_flags

from ...conftest import TINY

WIDE = DecoderShape(28, 1536, 12, 2, 128, 8960, 150_000)
DEEP = EncoderShape(24, 1024, 4096, 1, 588, 4, (4096, 1536, 1536))
PROBLEMS = {
    "one tile": Problem(WIDE, DEEP, Grid(32, 32), Grid(2, 2), tiles=1),
    "many tiles": Problem(WIDE, DEEP, Grid(32, 32), Grid(2, 2), tiles=6),
    "tower heavy": Problem(replace(WIDE, layers=12), DEEP, Grid(32, 32), Grid(2, 2), tiles=4),
}


def work(p: Problem, schedule: Schedule) -> float:
    """FLOPs of the first token."""
    return p.vision_flops(schedule) + p.prefill_work(schedule)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("ratio", [1.2, 1.6, 2.0])
def test_tower_and_prefill_together_make_the_ratio(name, ratio):
    p = PROBLEMS[name]
    found = solve_first_token(p, ratio)
    assert ratio <= work(p, Schedule()) / work(p, found) <= 1.02 * ratio
    assert found.ratio == ratio and not found.lasting and p.leaving(found) == p.grid
    assert found.match == found.restore == bool(found.vision)


@pytest.mark.parametrize("name", PROBLEMS)
def test_no_other_share_is_predicted_to_lose_less(name):
    p, ratio = PROBLEMS[name], 2.0
    ratios = p.ratios(solve_first_token(p, ratio))
    lost = points_lost(LOST_IN_TOWER, ratios.vision) + points_lost(LOST_IN_PREFILL, ratios.prefill)
    whole = p.vision_flops(Schedule()), p.prefill_work(Schedule())
    for choice in tower_choices(p, True):
        left = sum(whole) / ratio - whole[0] / choice.ratio
        if left > 0:
            other = points_lost(LOST_IN_PREFILL, max(1.0, whole[1] / left))
            # whole counts lie up to 2 % above what is asked for
            assert lost <= points_lost(LOST_IN_TOWER, choice.ratio) + other + 0.1


def test_more_than_everything_is_refused_with_the_largest():
    p = PROBLEMS["tower heavy"]
    with pytest.raises(LuvcError, match=r"largest feasible is [\d.]+x") as caught:
        solve_first_token(p, 50)
    largest = float(str(caught.value).split("feasible is ")[1].split("x")[0])
    assert p.ratios(solve_first_token(p, largest * 0.97)).both >= largest * 0.97
    # no text is left out, and the tower is never shorter than its choices
    tower = p.vision_flops(Schedule()) / largest_tower_ratio(p, True)
    assert largest < work(p, Schedule()) / tower


def test_a_towers_own_ratio_is_kept():
    p = PROBLEMS["many tiles"]
    found = solve_first_token(p, 2.0, replace(DEFAULTS, restore=True, match=True, tower_ratio=1.5))
    assert 1.5 <= p.ratios(found).vision <= 1.53 and p.ratios(found).both >= 2
    fixed = solve_first_token(p, 2.0, replace(DEFAULTS, restore=True, tower_ratio=1.5))
    assert fixed.vision and not fixed.match
    assert solve_first_token(p, 1.0) == Schedule(ratio=1, **DEFAULTS.scoring)


@pytest.mark.parametrize(
    "options", [METHODS["pool"].options, METHODS["paper"].options], ids=["pool", "paper"]
)
def test_methods_that_share_it_themselves_are_refused(options):
    with pytest.raises(LuvcError, match=r"shares the ratio .* by itself.*--ratio-of flops"):
        solve_first_token(PROBLEMS["one tile"], 2.0, options)


@pytest.mark.parametrize("curve", [LOST_IN_TOWER, LOST_IN_PREFILL])
def test_losses_pass_through_what_was_measured(curve):
    for ratio, lost in curve:
        assert points_lost(curve, ratio) == pytest.approx(lost)
    for (x, low), (y, high) in itertools.pairwise(curve):
        middle = points_lost(curve, math.sqrt(x * y))
        assert middle == pytest.approx((low + high) / 2)
    assert points_lost(curve, 2 * curve[-1][0]) > curve[-1][1]


def test_it_is_asked_for_and_recorded(workshop, monkeypatch):
    model = str(workshop.checkpoint(**TINY, text="qwen2"))
    given = {"model": model, "reference_text": 8, "text_capacity": 96, "ratio_of": "first-token"}
    config = ExportConfig.make(ratios=(1.3, 1.0), **given)
    layouts = plan(config)
    assert [layout.ratio for layout in layouts] == [1.3, 1.0]
    assert layouts[0].ratios.both >= 1.3 and layouts[1].ratios.both == 1
    assert config.solved_for and config.solved_for.ratio_of == "first-token"
    with pytest.raises(LuvcError, match="--ratio-of first-token solves a schedule"):
        ExportConfig.make(schedule=layouts[0].schedule, **given)
    monkeypatch.setattr(first_token, "tower_choices", lambda *_: ())
    assert not plan(config)[0].schedule.vision


def test_the_export_command_says_it(workshop):
    manifest = workshop.bundle("qwen2-ratios").manifest
    solver = manifest.solver.model_copy(update={"ratio_of": "first-token"})
    flags = solver_flags(manifest.model_copy(update={"solver": solver})) or []
    assert "--ratio-of first-token" in flags
    assert "--ratio-of first-token" not in (solver_flags(manifest) or [])
