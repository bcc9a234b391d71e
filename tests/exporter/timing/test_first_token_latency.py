"""Ratios of the first token's measured time: tower and prefill share them, on a made-up machine."""

import re

import pytest

from luvc.engines import Bundle
from luvc.engines.bundle.schedule import Schedule
from luvc.errors import LuvcError
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.prepare import prepare
from luvc.exporter.timing import latency
from luvc.exporter.timing.measured_costs import TowerCosts

from .machine import FIRST, TRUE, Machine, config, solve_for_latency, vision_ms


@pytest.fixture
def family(workshop):
    return Family.load(str(workshop.checkpoint(layers=8, vision_layers=2, image=336)))


def test_a_shortened_tower_is_on_the_line_through_two():
    costs = TowerCosts(whole=9.0, merged=((100.0, 4.0), (200.0, 6.0)))
    assert [costs.vision(flops) for flops in (100, 150, 200)] == [4, 5, 6]
    assert TowerCosts(9.0, ((100.0, 4.0),)).vision(100.0) == 4
    noisy = TowerCosts(9.0, ((100.0, 4.0), (200.0, 3.9)))
    assert noisy.vision(150.0) == 4, "more work takes no less time"
    assert hash(TowerCosts(9.0, [[100, 4]])) == hash(TowerCosts(9.0, ((100.0, 4.0),)))  # type: ignore


def first_token_ms(problem, schedule):
    visual = schedule.visual_per_layer(8, problem.visual_tokens(()))
    scored = sum(p.keep > 0 for p in schedule.language)
    return vision_ms(problem, schedule) + TRUE.prefill([v + 64 for v in visual], scored)


@pytest.mark.parametrize("options", [{}, {"tower_ratio": 1.05}, {"ratio": 1.1}], ids=str)
def test_tower_and_prefill_share_a_measured_ratio(monkeypatch, tmp_path, family, workshop, options):
    machine = Machine(monkeypatch, tmp_path, family, workshop)
    asked = options.get("ratio", 1.5)
    timed = solve_for_latency(tmp_path, family, **FIRST | options)
    plain, ours = (first_token_ms(machine.visual, s) for s in (Schedule(), timed.schedule))
    assert (timed.baseline_ms, timed.compressed_ms) == pytest.approx((plain, ours))
    assert timed.measured == pytest.approx(plain / ours)
    assert asked <= timed.measured <= asked * 1.02
    assert timed.schedule.ratio == asked
    assert timed.predicted == pytest.approx(timed.measured, rel=1e-3)
    assert bool(timed.schedule.vision) == timed.schedule.restore
    if options.get("tower_ratio"):
        assert machine.visual.ratios(timed.schedule).vision >= 1.05
    probes = [run.output.name for run in machine.runs if run.output.name.startswith("tower")]
    ends = 1 if "tower_ratio" in options else 2
    assert probes == [f"tower-{i}" for i in range(1 + ends)] and not machine.open
    solve_for_latency(tmp_path, family, **FIRST | options)
    again = [run.output.name for run in machine.runs if run.output.name.startswith("tower")]
    assert again == probes, "towers are not measured twice on a machine"


def test_a_first_token_beyond_both_is_refused_with_the_largest(
    monkeypatch, tmp_path, family, workshop
):
    """That one is feasible, a tenth more is not."""
    Machine(monkeypatch, tmp_path, family, workshop)
    said = r"9x of the first token's latency.*largest feasible is ([\d.]+)x \(tower and prefill together"
    with pytest.raises(LuvcError, match=said) as caught:
        solve_for_latency(tmp_path, family, ratio=9, **FIRST)
    largest = float(re.findall(said, str(caught.value))[0])
    with pytest.raises(LuvcError, match="largest feasible"):
        solve_for_latency(tmp_path, family, ratio=1.1 * largest, **FIRST)
    timed = solve_for_latency(tmp_path, family, ratio=0.97 * largest, **FIRST)
    assert timed.measured >= 0.97 * largest
    with pytest.raises(LuvcError, match="--ratio-of first-token-latency shares the ratio"):
        prepare(config(tmp_path, family, oim_share=0.5, **FIRST), family)


@pytest.mark.slow
def test_towers_are_exported_and_timed(monkeypatch, tmp_path, family):
    """Real ones: whole, and at both ends; the model's own grid, before two language layers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    prepared = prepare(config(tmp_path, family, **FIRST), family)
    problem = prepared.plans[0].problem
    steps = []
    assert problem is not None
    found = latency._tower_costs(latency._Bench(prepared, tmp_path / "work", steps.append), problem)
    (short, first), (long, second) = found.merged
    assert short < long < problem.vision_flops(Schedule())
    assert min(found.whole, first, second) > 0
    made = [Bundle.load(path) for path in sorted((tmp_path / "work").glob("tower-*"))]
    assert [len(b.manifest.layouts[0].schedule.vision) > 0 for b in made] == [False, True, True]
    assert {b.manifest.language.layers for b in made} == {2}
    assert {b.manifest.layouts[0].grid for b in made} == {(problem.grid.h, problem.grid.w)}
