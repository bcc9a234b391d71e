"""Ratios of measured time: a cost model fitted on the target backend, and a schedule solved with it.

What is measured is the prefill (`--ratio-of latency`), or the first token, tower and prefill
(`first-token-latency`). A probe is the model with few layers and random weights (time does not depend on
values), exported and run like any bundle: without pruning, and with k of V visual tokens from layer 1 on.
Towers are probed whole: as they are, and the shortest and the longest that OIM makes of them. The cost model
(measured_costs.py) follows from the probes. The schedule solved with them is then measured itself, beside
ratio 1, and corrected until the measured ratio is near the one asked for.
Letters: V visual tokens, k kept, n tokens of a layer.
"""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...engines.bundle.schedule import Prune, Schedule, groups_of
from ...engines.bundle.swap import beside
from ...errors import LuvcError
from ..assemble import Progress
from ..checkpoint.family import Family
from ..checkpoint.hub import quiet
from ..checkpoint.weights import fetch_weights
from ..config import SHARED, ExportConfig
from ..planning.first_token import sharing, shortened_tower, solve_first_token, towers
from ..planning.problem import Problem, check_schedule
from ..planning.solver import solve
from ..prepare import Prepared, plan_layouts
from ..write_bundle import write
from .interleaved import until_certain
from .known_costs import known, stage_key, tower_key
from .measured_costs import StageCosts, TimedProblem, TowerCosts, fit
from .prompt import TimedPrompt

WHAT = {"latency": "latency", "first-token-latency": "the first token's latency"}
TOLERANCE = 0.05
TRIES = 5  # schedules measured before giving up
PROBES = 0.04  # certainty of probes: what they leave open, the schedule's measurement corrects


@dataclass(frozen=True)
class Timed:
    """A schedule for a ratio of time: what the cost model predicts and what was measured.

    Attributes:
        of: what time is meant, as `--ratio-of` says it.
        tower: where its time counts.
    """

    schedule: Schedule
    asked: float
    predicted: float
    measured: float
    baseline_ms: float
    compressed_ms: float
    costs: StageCosts
    tower: TowerCosts | None = None
    of: str = "latency"

    @property
    def what(self) -> str:
        """In words."""
        return WHAT[self.of]


def solve_for_latency(prepared: Prepared, progress: Progress) -> tuple[Prepared, Timed]:
    """The export under the schedule whose measured time is `config.ratio` times less than ratio 1's.

    Args:
        prepared: with one layout with images.
        progress: called as steps start.

    Raises:
        LuvcError: too few layers, a ratio out of reach, measurements that do not settle within 5 %, or
            the weights cannot be read.
    """
    config, problem = prepared.config, prepared.plans[0].problem
    assert problem is not None  # a config has a layout with images, and those come first
    if problem.decoder.layers < 3:
        raise LuvcError(
            f"--ratio-of {config.ratio_of} needs 3 layers to measure, this has {problem.decoder.layers}"
        )
    fetch_weights(prepared.family, progress)  # what cannot be had is known before an hour of probes
    with beside(config.output) as work:
        bench = _Bench(prepared, work, progress)
        timed = _settle(bench, config, problem)
    return prepared.scheduled(timed.schedule, ratio_of=config.ratio_of), timed


def _settle(bench: "_Bench", config: ExportConfig, problem: Problem) -> Timed:
    """Measure what stages, and where it counts the tower, cost and ratio 1, then solve."""
    costs = _stage_costs(bench, problem)
    tower = _tower_costs(bench, problem) if config.ratio_of in SHARED else None
    in_time = TimedProblem(**vars(problem), costs=costs, tower=tower)
    bench.progress("measuring ratio 1")
    with contextlib.closing(bench.prompt("1x", Schedule())) as plain:
        return _correct(bench, config, problem, in_time, plain)


def _correct(
    bench: "_Bench",
    config: ExportConfig,
    problem: Problem,
    in_time: TimedProblem,
    plain: TimedPrompt,
) -> Timed:
    """Solve, measure and correct until the measured ratio is the one asked for."""
    aim, timed = config.ratio, None
    shared = config.ratio_of in SHARED
    for _ in range(TRIES):
        schedule = _solve(in_time, aim, config, timed)
        found = in_time.ratios(schedule)
        predicted = found.both if shared else found.prefill
        # checking tells the FLOPs that it saves; the manifest says the time that was asked for
        schedule = check_schedule(problem, schedule).model_copy(update={"ratio": config.ratio})
        bench.progress(f"measuring a schedule predicted at {predicted:.2f}x")
        with contextlib.closing(bench.prompt("try", schedule)) as tried:
            both = plain, tried
            slow, fast = until_certain([p.run_first_token if shared else p.run for p in both])
        times = predicted, slow / fast, slow, fast
        costs = in_time.costs, in_time.tower
        timed = Timed(schedule, config.ratio, *times, *costs, config.ratio_of)
        if abs(timed.measured / config.ratio - 1) <= TOLERANCE:
            return timed
        aim = max(1.0, aim * config.ratio / timed.measured)
    assert timed
    raise _unsettled(timed)


def _solve(problem: TimedProblem, aim: float, config: ExportConfig, last: Timed | None) -> Schedule:
    find = solve_first_token if config.ratio_of in SHARED else solve
    try:
        return find(problem, aim, config.solver)
    except LuvcError as e:
        if last:  # a correction is out of reach, not what was asked for
            raise _unsettled(last) from e
        asked = f"{config.ratio:g}x of {WHAT[config.ratio_of]}"
        raise LuvcError(f"{asked}, as measured on this machine: {e}") from e


def _unsettled(last: Timed) -> LuvcError:
    less = f"ask for {last.measured:.2g}x, " if last.measured >= 1.05 else ""
    return LuvcError(
        f"{last.asked:g}x of {last.what} was asked for, the schedule last measured gives "
        f"{last.measured:.2f}x ({last.baseline_ms:.1f} ms to {last.compressed_ms:.1f} ms), more than "
        f"{100 * TOLERANCE:g} % off: repeat on a machine that does nothing else, "
        f"{less}or use --ratio-of flops"
    )


# ---- probes
class _Bench:
    """Bundles made beside the output, only to be timed.

    Args:
        prepared: the export whose schedule is sought.
        work: folder for the bundles.
        progress: called as steps start.
    """

    def __init__(self, prepared: Prepared, work: Path, progress: Progress):
        pictured = tuple(planned for planned in prepared.plans if planned.problem)
        self.prepared = replace(prepared, plans=pictured)
        self.work, self.progress = work, progress

    def prompt(self, name: str, schedule: Schedule) -> TimedPrompt:
        """The model's own bundle under a schedule, ready to be timed."""
        return self._timed(self.prepared, name, schedule)

    def probe(self, layers: int, keep: int | None) -> tuple[TimedPrompt, Schedule]:
        """A model of few layers with random weights, and its schedule.

        Args:
            layers: of its language model.
            keep: visual tokens from layer 1 on; None keeps all, and nothing is scored.
        """
        schedule = Schedule(
            language=() if keep is None else (Prune(layer=1, keep=keep),),
            **self.prepared.config.solver.scoring,
        )
        probe = self._written(f"probe-{layers}", layers, tower=False)
        return self._timed(probe, f"probe-{layers}-{keep}", schedule), schedule

    def tower(self, name: str, schedule: Schedule) -> TimedPrompt:
        """A model of two language layers with the whole tower under a schedule, and random weights."""
        return self._timed(self._written("tower", 2, tower=True), f"tower-{name}", schedule)

    def _written(self, name: str, layers: int, tower: bool) -> Prepared:
        """A probe's checkpoint, written once, as an export of it."""
        folder, config = self.work / name, self.prepared.config
        if not folder.exists():
            write_probe(self.prepared.family, layers, folder, tower)
        changes = {"model": str(folder), "schedule": Schedule(), "ratio_of": "flops"}
        asked = config.model_copy(update=changes | {"images": _pictured(config)})
        family = Family.load(str(folder))
        return Prepared(asked, family, plan_layouts(asked, family))

    def _timed(self, prepared: Prepared, name: str, schedule: Schedule) -> TimedPrompt:
        config = prepared.config
        changes = {"output": self.work / name, "check": False}
        changes |= {"calibrate": None}  # time does not depend on values
        bundle = write(prepared.scheduled(schedule, **changes))
        return TimedPrompt.of(bundle, config.reference_text, config.backend)


def _pictured(config: ExportConfig) -> tuple[int, ...]:
    """The numbers of images without 0: what is measured is a prompt with pictures."""
    return tuple(filter(None, config.images))


def _stage_costs(bench: _Bench, problem: Problem) -> StageCosts:
    """Costs measured earlier on this machine for these widths, or measured now."""

    def measure() -> tuple[StageCosts, list]:
        measured = _measure(bench, problem)
        return fit(measured), measured

    return known(StageCosts, stage_key(bench.prepared.config, problem), measure, bench.progress)


def _tower_costs(bench: _Bench, problem: Problem) -> TowerCosts:
    """Of the tower without OIM, and of the shortest and the longest that it may become."""
    config = bench.prepared.config
    options = sharing(config.solver)
    shorter = [shortened_tower(merges, options) for merges in towers(problem, options) if merges]
    shorter.sort(key=problem.vision_flops)
    ends = shorter[:1] + shorter[1:][-1:]
    flops = [problem.vision_flops(schedule) for schedule in ends]

    def measure() -> tuple[TowerCosts, list[float]]:
        with contextlib.ExitStack() as made:
            runs = []
            for name, schedule in enumerate((Schedule(), *ends)):
                bench.progress(f"probing a tower of {problem.ratios(schedule).vision:.2f}x")
                prompt = bench.tower(str(name), schedule)
                made.callback(prompt.close)
                runs.append(prompt.run_tower)
            bench.progress("timing the towers")
            whole, *merged = until_certain(runs, PROBES)
        return TowerCosts(whole, tuple(zip(flops, merged, strict=True))), [whole, *merged]

    return known(TowerCosts, tower_key(config, problem, flops), measure, bench.progress)


def _measure(bench: _Bench, problem: Problem) -> list[tuple[list[int], int, float]]:
    """(tokens per layer, scored stages, ms) of each probe."""
    V = problem.visual_tokens(())
    scope = bench.prepared.config.solver.scope
    groups = groups_of(scope, problem.images, problem.tiles)
    deep = min(problem.decoder.layers, 5)
    keeps = sorted({V * i // (4 * groups) * groups for i in range(4)})
    probes: list[tuple[int, int | None]] = [(2, None), (deep, None), *((deep, k) for k in keeps)]
    runs, shapes = [], []
    with contextlib.ExitStack() as made:
        for layers, keep in probes:
            kept = "" if keep is None else f", {keep} of {V} visual tokens kept"
            bench.progress(f"probing {layers} layers{kept}")
            prompt, schedule = bench.probe(layers, keep)
            made.callback(prompt.close)
            tokens = [v + prompt.text for v in schedule.visual_per_layer(layers, V)]
            runs.append(prompt.run)
            shapes.append((tokens, int(bool(keep))))
        bench.progress("timing the probes")
        times = until_certain(runs, PROBES)
    return [(*s, ms) for s, ms in zip(shapes, times, strict=True)]


def write_probe(family: Family, layers: int, folder: Path, tower: bool = False) -> None:
    """The model with `layers` language layers, random weights, as a checkpoint.

    Args:
        family: of the model.
        layers: of its language model.
        folder: to write to.
        tower: keep all of the vision tower's layers, not few.
    """
    from transformers import AutoModelForImageTextToText

    config = family.truncated(layers).config
    if not tower:
        _few_vision_layers(config)
    model: Any = AutoModelForImageTextToText.from_config(config)
    with quiet():
        model.save_pretrained(folder)
    family.tokenizer.save_pretrained(folder)
    family.image_processor.save_pretrained(folder)


def _few_vision_layers(config: Any) -> None:
    tower, chosen = config.vision_config, getattr(config, "vision_feature_layer", -1)
    if hasattr(tower, "num_hidden_layers") and chosen in (-1, -2):  # as few as that choice allows
        tower.num_hidden_layers = -chosen
    elif hasattr(tower, "depth"):
        tower.depth = 1 + max(getattr(tower, "deepstack_visual_indexes", ()), default=0)
