"""Ratios of measured time: a cost model fitted on the target backend, and a schedule solved with it.

A probe is the model with few layers and random weights (time does not depend on values), exported
and run like any bundle: without pruning, and with k of V visual tokens from layer 1 on. With n tokens
in a layer, prefill takes

    fixed + scoring + sum over layers of (a + b n + c n^2)  milliseconds

whose coefficients follow from the probes. The schedule solved with them is then measured itself,
beside ratio 1, and corrected until the measured ratio is near the one asked for.
Letters: V visual tokens, k kept, n tokens of a layer.
"""

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...engines.backends import backend as load_backend
from ...engines.bundle.folder import Bundle
from ...engines.bundle.schedule import Prune, Schedule, groups_of
from ...engines.bundle.swap import beside
from ...errors import LuvcError
from ...files import user_cache, whole
from ..checkpoint.family import Family
from ..checkpoint.hub import quiet
from ..config import ExportConfig
from ..planning.problem import Problem, check_schedule
from ..planning.solver import solve
from .interleaved import TimedPrompt, in_turns

TOLERANCE = 0.05
TRIES = 5  # schedules measured before giving up
PROBES = 0.04  # certainty of probes: what they leave open, the schedule's measurement corrects
Progress = Callable[[str], None]


@dataclass(frozen=True)
class StageCosts:
    """Milliseconds: `fixed` per prompt, `scoring` per SPU stage, a + b n + c n^2 per layer."""

    fixed: float
    scoring: float
    a: float
    b: float
    c: float

    def prefill(self, tokens: Sequence[int], stages: int) -> float:
        """ms of a prompt with these tokens in each layer and `stages` scored SPU stages."""
        n = np.asarray(tokens, float)
        return (
            self.fixed + self.scoring * stages + float(np.sum(self.a + self.b * n + self.c * n**2))
        )


@dataclass(frozen=True)
class TimedProblem(Problem):
    """A layout whose prefill is counted in measured milliseconds instead of FLOPs."""

    costs: StageCosts = StageCosts(0, 0, 0, 1, 0)

    def prefill_flops(self, schedule: Schedule) -> float:
        """Milliseconds of the language prefill under a schedule."""
        V = self.visual_tokens(schedule.vision)
        visual = schedule.visual_per_layer(self.decoder.layers, V)
        scored = len(schedule.scored)
        return self.costs.prefill([v + self.text for v in visual], scored)


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


def fit(measured: Sequence[tuple[Sequence[int], int, float]]) -> StageCosts:
    """Least squares of (tokens per layer, scored stages, ms); no coefficient is negative."""
    rows = []
    for tokens, stages, _ in measured:
        n = np.asarray(tokens, float)
        rows.append([1, stages, len(n), n.sum(), (n**2).sum()])
    matrix, target = np.array(rows), np.array([ms for *_, ms in measured])
    scale = np.abs(matrix).max(0)
    used = list(range(5))
    while True:
        found = np.linalg.lstsq(matrix[:, used] / scale[used], target, rcond=None)[0] / scale[used]
        if (found >= 0).all():
            break
        used.pop(int(np.argmin(found * scale[used])))  # noise made it negative: it is near 0
    values = np.zeros(5)
    values[used] = found
    return StageCosts(*map(float, values))


def for_latency(
    config: ExportConfig, family: Family, progress: Progress, export: Callable[..., Bundle]
) -> Timed:
    """The schedule whose measured prefill is `config.ratio` times faster than ratio 1.

    Args:
        config: of the export; one image size and count.
        family: of its model.
        progress: called as steps start.
        export: the pipeline's export (it imports this module).

    Raises:
        LuvcError: several layouts, a schedule given, a ratio out of reach, or measurements that do not
            settle within 5 %.
    """
    counts = tuple(filter(None, config.images))
    if max(map(len, (config.image_sizes, counts, config.frames))) > 1:
        raise LuvcError("--ratio-of latency solves one layout: give one --image-size and --images")
    if config.schedule is not None:
        raise LuvcError("--ratio-of latency solves a schedule, --schedule gives one: leave one out")
    size, frames = next(iter(config.image_sizes), None), next(iter(config.frames), 0)
    geometry = family.geometry(size, max(counts), frames)
    plain = family.problem(geometry, config.reference_text)
    if plain.decoder.layers < 3:
        raise LuvcError(
            f"--ratio-of latency needs 3 layers to measure, this has {plain.decoder.layers}"
        )
    only = {"check": False, "schedule": None, "ratio_of": "flops", "images": counts}
    quiet = config.model_copy(update=only)
    with beside(config.output) as work:
        costs = _cached_costs(quiet, family, plain, work, progress, export)
        problem = TimedProblem(**vars(plain), costs=costs)
        progress("measuring ratio 1")
        plain_bundle = _export(quiet, work / "1x", Schedule(), export)
        one = TimedPrompt.of(plain_bundle, config.reference_text, config.backend)
        aim, timed = config.ratio, None
        for _ in range(TRIES):
            schedule = _solve(problem, aim, config, timed)
            predicted = problem.prefill_flops(Schedule()) / problem.prefill_flops(schedule)
            schedule = check_schedule(plain, schedule)
            progress(f"measuring a schedule predicted at {predicted:.2f}x")
            bundle = _export(quiet, work / "try", schedule, export)
            two = TimedPrompt.of(bundle, config.reference_text, config.backend)
            slow, fast = in_turns([one, two])
            timed = Timed(schedule, config.ratio, predicted, slow / fast, slow, fast, costs)
            if abs(timed.measured / config.ratio - 1) <= TOLERANCE:
                return timed
            aim = max(1.0, aim * config.ratio / timed.measured)
    assert timed
    raise _unsettled(timed)


def _solve(problem: TimedProblem, aim: float, config: ExportConfig, last: Timed | None) -> Schedule:
    try:
        return solve(problem, aim, config.options)
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


def _export(config: ExportConfig, output: Path, schedule: Schedule, export: Callable) -> Bundle:
    return export(config.model_copy(update={"output": output, "schedule": schedule}))


# ---- probes
def _cached_costs(config, family, problem, work: Path, progress, export) -> StageCosts:
    """Costs measured earlier on this machine for these widths, or measured now."""
    runner = load_backend(config.backend)
    key = {
        "score": 2,  # raised where the same options cost something else than before
        "backend": runner.NAME, "cpu": platform.processor() or platform.machine(),
        "node": platform.node(), "cores": os.cpu_count(), "dtype": config.dtype,
        "decoder": replace(problem.decoder, layers=0).__dict__, "text": problem.text,
        "visual": problem.visual_tokens(()), "cutoff": config.cutoff,
        "signal": config.signal, "scope": config.scope, "capacity": config.text_capacity,
    }  # fmt: skip
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    file = user_cache() / f"latency-{name}.json"
    if known := _read_costs(file):
        progress(f"stage costs as measured before ({file})")
        return known
    measured = _measure(config, family, problem, work, progress, export)
    costs = fit(measured)
    with contextlib.suppress(OSError):  # without a place to keep them the next export measures anew
        found = {"for": key, "costs": vars(costs), "measured": measured}
        with whole(file) as draft:
            draft.write_text(json.dumps(found, indent=1))
    return costs


def _read_costs(file: Path) -> StageCosts | None:
    """Costs kept earlier; None where there are none, or damaged ones."""
    try:
        return StageCosts(**json.loads(file.read_text())["costs"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _measure(config, family, problem, work: Path, progress, export) -> list:
    """(tokens per layer, scored stages, ms) of each probe."""
    V = problem.visual_tokens(())
    groups = groups_of(config.scope, problem.images)
    deep = min(problem.decoder.layers, 5)
    keeps = sorted({V * i // (4 * groups) * groups for i in range(4)})
    plans = [(2, None), (deep, None), *((deep, k) for k in keeps)]
    prompts, shapes = [], []
    for layers, keep in plans:
        what = f"{layers} layers" + ("" if keep is None else f", {keep} of {V} visual tokens kept")
        progress(f"probing {what}")
        folder = work / f"probe-{layers}"
        if not folder.exists():
            write_probe(family, layers, folder)
        stages = () if keep is None else (Prune(layer=1, keep=keep),)
        schedule = Schedule(
            language=stages, cutoff=config.cutoff, signal=config.signal, scope=config.scope
        )
        probe = config.model_copy(update={"model": str(folder)})
        bundle = _export(probe, work / f"probe-{layers}-{keep}", schedule, export)
        prompts.append(TimedPrompt.of(bundle, problem.text, config.backend))
        tokens = [v + prompts[-1].text for v in schedule.visual_per_layer(layers, V)]
        shapes.append((tokens, int(bool(keep))))
    progress("timing the probes")
    return [(*s, ms) for s, ms in zip(shapes, in_turns(prompts, PROBES), strict=True)]


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
