"""Ratios of measured time: a cost model fitted on the target backend, and a schedule solved with it.

A probe is the model with few layers and random weights (time does not depend on values), exported
and run like any bundle: without pruning, and with k of V visual tokens from layer 1 on. The cost model
(measured_costs.py) follows from the probes. The schedule solved with them is then measured itself,
beside ratio 1, and corrected until the measured ratio is near the one asked for.
Letters: V visual tokens, k kept, n tokens of a layer.
"""

import contextlib
import hashlib
import json
import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ... import strict_json
from ...engines.backends import backend as load_backend
from ...engines.bundle.schedule import Prune, Schedule, groups_of
from ...engines.bundle.swap import beside
from ...errors import LuvcError
from ...files import user_cache, whole
from ..assemble import Progress
from ..checkpoint.family import Family
from ..checkpoint.hub import quiet
from ..checkpoint.weights import fetch_weights
from ..config import ExportConfig
from ..planning.problem import Problem, check_schedule
from ..planning.solver import solve
from ..prepare import Prepared, plan_layouts
from ..write_bundle import write
from .interleaved import until_certain
from .measured_costs import StageCosts, TimedProblem, fit
from .prompt import TimedPrompt

TOLERANCE = 0.05
TRIES = 5  # schedules measured before giving up
PROBES = 0.04  # certainty of probes: what they leave open, the schedule's measurement corrects


@dataclass(frozen=True)
class Timed:
    """A schedule for a ratio of time: what the cost model predicts and what was measured."""

    schedule: Schedule
    asked: float
    predicted: float
    measured: float
    baseline_ms: float
    compressed_ms: float
    costs: StageCosts


def solve_for_latency(prepared: Prepared, progress: Progress) -> tuple[Prepared, Timed]:
    """The export under the schedule whose measured prefill is `config.ratio` times faster than ratio 1.

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
            f"--ratio-of latency needs 3 layers to measure, this has {problem.decoder.layers}"
        )
    fetch_weights(prepared.family, progress)  # what cannot be had is known before an hour of probes
    with beside(config.output) as work:
        bench = _Bench(prepared, work, progress)
        timed = _settle(bench, config, problem)
    return prepared.scheduled(timed.schedule), timed


def _settle(bench: "_Bench", config: ExportConfig, problem: Problem) -> Timed:
    """Measure what stages cost and ratio 1, then solve."""
    costs = _cached_costs(bench, problem)
    bench.progress("measuring ratio 1")
    with contextlib.closing(bench.prompt("1x", Schedule())) as plain:
        return _correct(bench, config, problem, costs, plain)


def _correct(
    bench: "_Bench", config: ExportConfig, problem: Problem, costs: StageCosts, plain: TimedPrompt
) -> Timed:
    """Solve, measure and correct until the measured ratio is the one asked for."""
    in_time = TimedProblem(**vars(problem), costs=costs)
    aim, timed = config.ratio, None
    for _ in range(TRIES):
        schedule = _solve(in_time, aim, config, timed)
        predicted = in_time.prefill_work(Schedule()) / in_time.prefill_work(schedule)
        schedule = check_schedule(problem, schedule)
        bench.progress(f"measuring a schedule predicted at {predicted:.2f}x")
        with contextlib.closing(bench.prompt("try", schedule)) as tried:
            slow, fast = until_certain([plain.run, tried.run])
        timed = Timed(schedule, config.ratio, predicted, slow / fast, slow, fast, costs)
        if abs(timed.measured / config.ratio - 1) <= TOLERANCE:
            return timed
        aim = max(1.0, aim * config.ratio / timed.measured)
    assert timed
    raise _unsettled(timed)


def _solve(problem: TimedProblem, aim: float, config: ExportConfig, last: Timed | None) -> Schedule:
    try:
        return solve(problem, aim, config.solver)
    except LuvcError as e:
        if last:  # a correction is out of reach, not what was asked for
            raise _unsettled(last) from e
        raise LuvcError(f"{config.ratio:g}x of latency, as measured on this machine: {e}") from e


def _unsettled(last: Timed) -> LuvcError:
    less = f"ask for {last.measured:.2g}x, " if last.measured >= 1.05 else ""
    return LuvcError(
        f"{last.asked:g}x of latency was asked for, the schedule last measured gives "
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
        folder, config = self.work / f"probe-{layers}", self.prepared.config
        if not folder.exists():
            write_probe(self.prepared.family, layers, folder)
        schedule = Schedule(
            language=() if keep is None else (Prune(layer=1, keep=keep),),
            **config.solver.scoring,
        )
        changes = {"model": str(folder), "schedule": Schedule(), "ratio_of": "flops"}
        asked = config.model_copy(update=changes | {"images": _pictured(config)})
        family = Family.load(str(folder))
        probe = Prepared(asked, family, plan_layouts(asked, family))
        return self._timed(probe, f"probe-{layers}-{keep}", schedule), schedule

    def _timed(self, prepared: Prepared, name: str, schedule: Schedule) -> TimedPrompt:
        config = prepared.config
        changes = {"output": self.work / name, "check": False}
        changes |= {"calibrate": None}  # time does not depend on values
        bundle = write(prepared.scheduled(schedule, **changes))
        return TimedPrompt.of(bundle, config.reference_text, config.backend)


def _pictured(config: ExportConfig) -> tuple[int, ...]:
    """The numbers of images without 0: what is measured is a prompt with pictures."""
    return tuple(filter(None, config.images))


def _cached_costs(bench: _Bench, problem: Problem) -> StageCosts:
    """Costs measured earlier on this machine for these widths, or measured now."""
    key = _cost_key(bench.prepared.config, problem)
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    file = user_cache() / f"latency-{name}.json"
    if known := _read_costs(file):
        bench.progress(f"stage costs as measured before ({file})")
        return known
    measured = _measure(bench, problem)
    costs = fit(measured)
    with contextlib.suppress(OSError, LuvcError):  # not kept, they are measured anew next time
        found = {"for": key, "costs": vars(costs), "measured": measured}
        with whole(file) as draft:
            draft.write_text(json.dumps(found, indent=1))
    return costs


def _cost_key(config: ExportConfig, problem: Problem) -> dict[str, Any]:
    """What the costs of a stage depend on."""
    return {
        "form": 3,  # raised where the same options cost something else than before
        "backend": load_backend(config.backend).NAME,
        "cpu": platform.processor() or platform.machine(),
        "node": platform.node(),
        "cores": os.cpu_count(),
        "dtype": config.dtype,
        "weights": str(config.quantisation or "full"),  # probes have numbers where codes are kept
        "decoder": replace(problem.decoder, layers=0).__dict__,
        "text": problem.text_tokens,
        "visual": problem.visual_tokens(()),
        "score": str(config.solver.score),
        "scope": config.solver.scope,
        "capacity": config.text_capacity,
    }


def _read_costs(file: Path) -> StageCosts | None:
    """Costs kept earlier; None where there are none, or damaged ones."""
    try:
        return StageCosts(**strict_json.read(file)["costs"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


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


def write_probe(family: Family, layers: int, folder: Path) -> None:
    """The model with `layers` language layers and few vision layers, random weights, as a checkpoint."""
    from transformers import AutoModelForImageTextToText

    config = family.truncated(layers).config
    tower, chosen = config.vision_config, getattr(config, "vision_feature_layer", -1)
    if hasattr(tower, "num_hidden_layers") and chosen in (-1, -2):  # as few as that choice allows
        tower.num_hidden_layers = -chosen
    elif hasattr(tower, "depth"):
        tower.depth = 1 + max(getattr(tower, "deepstack_visual_indexes", ()), default=0)
    model: Any = AutoModelForImageTextToText.from_config(config)
    with quiet():
        model.save_pretrained(folder)
    family.tokenizer.save_pretrained(folder)
    family.image_processor.save_pretrained(folder)
