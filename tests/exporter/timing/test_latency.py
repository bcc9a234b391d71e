"""Ratios of measured time: the fit, the solver on milliseconds, and the loop on a made-up machine."""

import re
from itertools import cycle

import numpy as np
import pytest

from luvc.engines import Bundle
from luvc.engines.bundle.schedule import Schedule
from luvc.errors import LuvcError
from luvc.exporter import ExportConfig, cli, pipeline
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.layouts.planned import image_geometry, problem_of
from luvc.exporter.planning.solver import solve
from luvc.exporter.timing import interleaved, latency
from luvc.exporter.timing.measured_costs import TimedProblem, fit
from luvc.tools import info
from luvc.tools.report.facts import solver_flags

from .machine import FIRST, TRUE, Machine, config, solve_for_latency

PROBES = [
    ([344] * 2, 0),
    ([344] * 5, 0),
    *(([344] + [64 + k] * 4, int(k > 0)) for k in (0, 70, 140, 210)),
]


def test_the_fit_finds_the_coefficients():
    found = fit([(t, s, TRUE.prefill(t, s)) for t, s in PROBES])
    assert vars(found) == pytest.approx(vars(TRUE), rel=1e-5)


def test_noise_makes_no_cost_negative():
    random = np.random.default_rng(3)
    for _ in range(50):
        noisy = [(t, s, TRUE.prefill(t, s) * random.normal(1, 0.1)) for t, s in PROBES]
        assert min(vars(fit(noisy)).values()) >= 0


def test_a_prompt_is_timed(workshop):
    bundle = workshop.bundle("qwen2")
    with latency.TimedPrompt.of(bundle, text=40) as prompt:
        assert prompt.text == 40
        assert all(ms > 0 for ms in latency.until_certain([prompt.run]))
    with pytest.raises(LuvcError, match="closed"):
        prompt.run()


class Shared:
    """A prompt of `ms` with noise; `shared` slows 12 runs of every 24 down."""

    runs = 0

    def __init__(self, ms, noise, shared=1.0):
        self.ms = ms
        self.noise = noise
        self.shared = shared
        self.random = np.random.default_rng(5)

    def run(self):
        Shared.runs += 1
        load = 1 + (Shared.runs // 12) % 2 * self.shared
        return self.ms * load * self.random.lognormal(0, self.noise)


def test_a_shared_machine_does_not_disturb_the_ratio():
    slow, fast = latency.until_certain([Shared(200, 0.01).run, Shared(100, 0.01).run])
    assert slow / fast == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize(
    "noise, rounds", [(0.001, interleaved.ROUNDS.start), (0.3, interleaved.ROUNDS.stop - 1)]
)
def test_rounds_go_on_while_ratios_spread(noise, rounds):
    Shared.runs = 0
    latency.until_certain([Shared(1, noise, 0).run, Shared(1, 0, 0).run])
    assert Shared.runs == 2 * (rounds + 1)


@pytest.fixture
def family(workshop):
    return Family.load(str(workshop.checkpoint(layers=8, vision_layers=2, image=336)))


def test_the_schedule_has_the_measured_ratio(monkeypatch, tmp_path, family, workshop):
    machine = Machine(monkeypatch, tmp_path, family, workshop)
    timed = solve_for_latency(tmp_path, family)
    assert timed.measured == pytest.approx(timed.predicted, rel=1e-3)
    assert 1.5 <= timed.measured <= 1.5 * 1.02
    assert timed.schedule.ratio == 1.5, "of time, as it was asked for"
    flops = machine.visual.ratios(timed.schedule).prefill
    assert flops > timed.measured * 1.05, "overheads make FLOPs and time differ here"
    assert not list((tmp_path / "new").iterdir()) and not machine.open
    probes = len(machine.runs)
    solve_for_latency(tmp_path, family)
    assert len(machine.runs) - probes == 2, "stage costs are not measured twice on a machine"


def test_a_wrong_prediction_is_corrected(monkeypatch, tmp_path, family, workshop):
    Machine(monkeypatch, tmp_path, family, workshop, bias=1.1)
    timed = solve_for_latency(tmp_path, family)
    assert timed.predicted > 1.5 * 1.05
    assert timed.measured == pytest.approx(1.5, rel=0.05)
    assert timed.schedule.ratio == 1.5, "not what the correction aimed at"


def test_a_correction_out_of_reach_tells_what_was_measured(monkeypatch, tmp_path, family, workshop):
    Machine(monkeypatch, tmp_path, family, workshop, bias=1.5)
    with pytest.raises(LuvcError, match=r"1\.5x of latency was asked for.* gives 1\.0\dx"):
        solve_for_latency(tmp_path, family)


@pytest.mark.parametrize("damage", ["unwritable", "not JSON"])
def test_costs_that_cannot_be_kept_are_measured_anew(
    monkeypatch, tmp_path, family, workshop, damage
):
    machine = Machine(monkeypatch, tmp_path, family, workshop)
    cache = tmp_path / "cache"
    if damage == "unwritable":
        cache.write_text("a file where the folder should be")
    for _ in range(2):
        solve_for_latency(tmp_path, family)
        for file in cache.glob("luvc-export/latency-*.json"):
            file.write_text("{")
    assert [run.output.name for run in machine.runs].count("probe-2-None") == 2


def test_measurements_that_do_not_settle_are_refused(monkeypatch, tmp_path, family, workshop):
    machine = Machine(monkeypatch, tmp_path, family, workshop)
    disturbed = cycle([1.1, 0.9])

    def once(measured, certainty=0):
        times = [run() for run in measured]
        return times if len(times) != 2 else [times[0], times[1] * next(disturbed)]

    monkeypatch.setattr(latency, "until_certain", once)
    with pytest.raises(LuvcError, match=r"1\.5x of latency was asked for.*more than 5 % off"):
        solve_for_latency(tmp_path, family)
    assert sum(run.output.name == "try" for run in machine.runs) == latency.TRIES


def test_questions_without_a_picture_are_not_measured(monkeypatch, tmp_path, family, workshop):
    machine = Machine(monkeypatch, tmp_path, family, workshop)
    solve_for_latency(tmp_path, family, images=(0, 1))
    assert machine.planned == {("336x336",)}


def test_requests_that_cannot_be_solved(tmp_path, family):
    with pytest.raises(LuvcError, match="one layout"):
        config(tmp_path, family, images=(1, 2))
    with pytest.raises(LuvcError, match="--ratio-of first-token-latency solves one layout"):
        config(tmp_path, family, images=(1, 2), **FIRST)
    for of in ("latency", "first-token-latency"):
        with pytest.raises(LuvcError, match=f"--ratio-of {of} solves a schedule.*leave one"):
            ExportConfig.make(model="x", ratio_of=of, schedule=Schedule())


def test_the_solver_counts_milliseconds(family):
    plain = problem_of(family, image_geometry(family), 64)
    problem = TimedProblem(**vars(plain), costs=TRUE)
    schedule = solve(problem, 1.4)
    ratio = problem.prefill_work(Schedule()) / problem.prefill_work(schedule)
    assert 1.4 <= ratio <= 1.4 * 1.02


# ---- real exports


@pytest.fixture
def machine(monkeypatch, tmp_path, family, workshop):
    """A made-up machine that measures for an export, which writes a real bundle in the end."""
    return Machine(monkeypatch, tmp_path, family, workshop)


def ratio_of(bundle):
    """Of the made-up machine's times, for 144 visual and 64 text tokens in 8 layers."""
    (layout,) = bundle.manifest.layouts
    visual = layout.schedule.visual_per_layer(8, layout.visual_tokens)
    scored = sum(p.keep > 0 for p in layout.schedule.language)
    return TRUE.prefill([144 + 64] * 8, 0) / TRUE.prefill([v + 64 for v in visual], scored)


def test_a_bundle_has_the_schedule_that_was_measured(tmp_path, family, machine):
    asked = config(tmp_path, family, check=False)
    bundle = pipeline.export(asked, family=family)
    solver = bundle.manifest.solver
    assert solver and (solver.ratio, solver.ratio_of) == (1.5, "latency")
    (layout,) = bundle.manifest.layouts
    assert layout.schedule.ratio == layout.ratio == 1.5, "what answers say and requests ask for"
    assert solver_flags(bundle.manifest) is None, "another machine's time gives another schedule"
    for of, said in {
        "latency": "prefill's measured",
        FIRST["ratio_of"]: "first token's",
    }.items():
        assert said in info._method(solver.model_copy(update={"ratio_of": of}).model_dump())
    assert {"probe-2-None", "1x", "try"} <= {run.output.name for run in machine.runs}
    assert 1.5 <= ratio_of(bundle) <= 1.5 * 1.02
    assert [p.name for p in asked.output.parent.iterdir()] == ["b"], "the probes are gone"


@pytest.mark.slow
def test_the_command_tells_what_was_measured(tmp_path, family, machine, command):
    target = tmp_path / "new" / "b"
    line = ("--model", family.source, "--output", target, "--ratio", "1.5", "--no-validate")
    result = command(cli, *line, "--ratio-of", "latency")
    assert result.code == 0, result.err
    told = re.search(r"asked 1\.50x, predicted [\d.]+x, measured ([\d.]+)x", result.out)
    assert told and float(told[1]) == pytest.approx(ratio_of(Bundle.load(target)), abs=0.006)
    assert 1.5 <= float(told[1]) <= 1.53


def test_a_probe_is_exported_and_timed(tmp_path, family):
    """What is measured is the model but for its depth: widths, tokens and prompt are the same."""
    latency.write_probe(family, 2, tmp_path / "probe")
    asked = ExportConfig.make(
        model=str(tmp_path / "probe"), output=tmp_path / "bundle", ratio=1, check=False
    )
    bundle = pipeline.export(asked)
    language = family.language
    less = {"layers": 2, "layer_types": language.layer_types[:2]}
    assert bundle.manifest.language == language.model_copy(update=less)
    assert bundle.manifest.layouts[0].visual_tokens == 144
    with latency.TimedPrompt.of(bundle, text=64) as prompt:
        assert prompt.text == 64 and prompt.run() > 0
        assert 0 < prompt.run_tower() < prompt.run_first_token() + 50
    latency.write_probe(family, 2, tmp_path / "tower", tower=True)
    whole = Family.load(str(tmp_path / "tower"))
    assert whole.encoder == family.encoder and whole.decoder.layers == 2
