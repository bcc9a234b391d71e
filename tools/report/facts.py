"""What a report says of a bundle, gathered from its manifest, config and validation reports."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from ...dtypes import DTYPES
from ...engines.bundle.folder import Bundle
from ...engines.bundle.layout import Layout
from ...engines.bundle.manifest import Manifest
from ...engines.bundle.schedule import ScoreSpec, Solver
from ...engines.validate import Report
from ...errors import LuvcError
from ...exporter.check.parity import reports
from ...exporter.checkpoint.family import Family
from ...exporter.config import MEASURED, SOLVER
from ...exporter.layouts.notes import notes
from ...exporter.layouts.planned import replan
from ...exporter.planning.defaults import SolverOptions, shown
from ...exporter.planning.methods import USUAL, find, score_of
from ...exporter.report import human, stage_rows
from ...strict_json import Words, read_as
from ..bench.tables import ROWS
from ..eval import outcome

ASKED = {
    "flops": "FLOPs of the prefill",
    "first-token": "FLOPs of the first token, tower and prefill",
    "latency": "time of the prefill, as measured on the machine that made it",
    "first-token-latency": "time of the first token, as measured on the machine that made it",
}
"""What a ratio was asked of, by `Solver.ratio_of`."""


def layout_facts(bundle: Bundle, family: Family, layout: Layout) -> dict[str, Any]:
    """Numbers of one layout: tokens, FLOPs and bytes beside the baseline, stage by stage."""
    m = bundle.manifest
    rows = stage_rows(family, layout, m.reference_text, m.dtype)
    planned = replan(family, layout, m.reference_text)
    problem = planned.problem
    assert problem is not None
    flops = {
        "vision tower": _pair(layout.ratios.vision, problem.vision_flops(layout.schedule)),
        "language prefill": _pair(layout.ratios.prefill, problem.prefill_work(layout.schedule)),
    }
    before, after = (sum(pair) for pair in zip(*flops.values(), strict=True))
    flops["both"] = before, after
    plain = sum(r["baseline_kv_bytes"] for r in rows), sum(r["kv_bytes"] for r in rows)
    per_token = m.kv_bytes(layout, 1) - m.kv_bytes(layout, 0)
    reserved = plain[0] + per_token * (m.text_capacity - m.reference_text), m.kv_bytes(layout)
    return {
        "layout": layout,
        "stages": [_stage(r) for r in rows],
        "flops": flops,
        "kv": {f"prompt of {m.reference_text} text tokens": plain, "reserved per row": reserved},
        "grids": [g.tokens for g in problem.grids(layout.schedule)],
        "vision_baseline": problem.baseline.grid.tokens,
        "visual": layout.schedule.visual_per_layer(m.language.layers, layout.visual_tokens),
        "score": score_of(layout.schedule.score).described,
        "asked": m.solver and ASKED.get(m.solver.ratio_of),
        "notes": notes(planned, m.solver and SolverOptions.of(m.solver, layout.schedule.score)),
    }


def _pair(ratio: float, compressed: float) -> tuple[float, float]:
    return ratio * compressed, compressed


def _stage(row: dict[str, Any]) -> dict[str, str]:
    first, last = row["first"], row["last"]
    return {
        "layers": f"{first}-{last}" if last > first else str(first),
        "visual": str(row["visual_tokens"]),
        "flops": human(row["flops"]),
        "flops_share": f"{row['flops'] / row['baseline_flops']:.0%}",
        "kv": human(row["kv_bytes"]),
        "kv_share": f"{row['kv_bytes'] / row['baseline_kv_bytes']:.0%}",
    }


def parity(bundle: Bundle) -> list[dict[str, Any]]:
    """Every validation report in the bundle, with the limits it was held to."""
    return [{"report": r, "limits": r.limits, "worst": worst(r)} for r in reports(bundle)]


def worst(report: Report) -> float:
    """The largest relative error of any stage."""
    return max(s.relative_error for s in report.stages)


def commands(bundle: Bundle, command: str) -> list[tuple[str, str]]:
    """What to type to make this bundle, check it and measure it again, with what each does."""
    layouts, name = bundle.manifest.pictured, shlex.quote(bundle.path.name)
    own = solver_flags(bundle.manifest) is None
    makes = "makes the bundle" + ", with the schedule on this page saved as schedule.json" * own
    makes += ", with what it was calibrated on as questions.jsonl" * bool(
        bundle.manifest.calibrated
    )
    plain = [x.schedule.model_copy(update={"ratio": 1.0}) for x in layouts]
    if own and any(schedule != plain[0] for schedule in plain):
        makes = "makes one like it: here each layout has a schedule of its own"
    return [
        (export_command(bundle.manifest, name), makes),
        (f"luvc-validate {name}", "compares it with PyTorch on your machine"),
        (f"luvc-bench {name} --compare hf", "measures it beside Hugging Face"),
        (command, "wrote this page"),
    ]


def solver_flags(manifest: Manifest) -> list[str] | None:
    """Options of luvc-export that give the bundle's schedules; None where only a file of them does."""
    if manifest.solver is None or manifest.solver.ratio_of in MEASURED:  # on another machine's time
        return None
    scored = [
        x for x in manifest.pictured if x.schedule.scored
    ]  # ratio 1 has a score of no meaning
    score = next(x.schedule.score for x in (*scored, *manifest.pictured))
    options = SolverOptions.of(manifest.solver, score)
    ratios = dict.fromkeys(x.schedule.ratio for x in manifest.pictured)
    flags = [f"--ratio {ratio:g}x" for ratio in ratios]
    if manifest.solver.ratio_of == "first-token":
        flags.append("--ratio-of first-token")
    flags += _method_flags(manifest.solver, score)
    if find(manifest.solver.method).options.smaller != "none":
        return flags  # it has no others
    for name, flag in SOLVER.items():
        value = getattr(options, name)
        if isinstance(value, bool):
            flags += [flag] * value
        else:
            flags.append(f"{flag} {shown(value)}")
    return flags


def _method_flags(solver: Solver, score: ScoreSpec) -> list[str]:
    """The method, and the options of its score that are not the method's own."""
    name = solver.method
    own = find(name).options.score
    flags = [f"--method {name}"] if name != USUAL else []
    usual = own.options if own.name == score.name else {}
    moved = {key: value for key, value in score.options.items() if usual.get(key) != value}
    return flags + [f"--method-option {key}={shown(value)}" for key, value in moved.items()]


def export_command(manifest: Manifest, target: str) -> str:
    """The luvc-export call that makes a bundle like this one.

    Args:
        manifest: of the bundle.
        target: name of the new bundle, quoted for a shell.
    """
    m = manifest
    sizes = dict.fromkeys(x.baseline_size or x.image_size for x in m.pictured)
    counts = dict.fromkeys(x.images for x in m.layouts)
    frames = dict.fromkeys(x.frames for x in m.pictured)
    parts = ["luvc-export", "--model", shlex.quote(m.model)]
    parts += [f"--revision {m.revision}"] if m.revision else []
    parts += solver_flags(m) or ["--schedule schedule.json"]
    parts += [f"--image-size {h}x{w}" for h, w in sizes]
    parts += [f"--images {n}" for n in counts if counts != {1: None}]
    parts += [f"--frames {n}" for n in frames if frames != {0: None}]
    parts += [f"--dtype {DTYPES[m.dtype].short}", f"--text-capacity {m.text_capacity}"]
    if m.weights is not None and m.quantised_as is None:
        parts += [f"--weights {m.weights.kind}"]
        parts += [f"--group-size {m.weights.group_size}"] if m.weights.group_size else []
        parts += ["--calibrate questions.jsonl"] if m.calibrated else []
    parts += [f"--backend {engine}" for engine in dict.fromkeys(e.backend for e in m.engines)]
    if m.dtype == "bfloat16" and not m.engines:
        parts += ["--backend tensorrt"]  # ONNX Runtime does not run it
    parts += [f"--text-tokens {m.reference_text}"]
    return " ".join([*parts, f"--output {target}"])


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Settings(_Part):
    batches: list[int]
    rounds: int
    threads: int


class _Machine(_Part):
    cpu: Words
    cores: int


class _System(_Part):
    model: Words | None = None


class _Measured(_Part):
    median: FiniteFloat


class _Positive(_Part):
    median: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Case(_Part):
    batch: int
    system: Words
    pixels_ms: _Measured | None
    vision_ms: _Measured | None
    prefill_ms: _Measured | None
    first_token_ms: _Positive
    decode_ms_per_token: _Measured | None


class _Bench(_Part):
    """What the page shows of a report of luvc-bench."""

    date: Words
    command: Words
    settings: _Settings
    machine: _Machine
    systems: list[_System]
    cases: list[_Case]


def read_bench(path: Path | None, manifest: Manifest) -> dict[str, Any] | None:
    """A luvc-bench report.

    Raises:
        LuvcError: not a file that luvc-bench wrote, or one about another model.
    """
    if path is None:
        return None
    data = read_as(_Bench, path, "luvc-bench --output").model_dump()
    if manifest.model not in (models := {s.get("model") for s in data["systems"]}):
        raise LuvcError(
            f"{path} measured {', '.join(map(str, models))}, this bundle was made from {manifest.model}: "
            "run luvc-bench on this bundle"
        )
    return data


def read_accuracy(paths: Sequence[Path]) -> dict[str, Any] | None:
    """Files of luvc-eval by ratio, and a curve a task where they hold several ratios.

    Raises:
        LuvcError: not files that luvc-eval wrote, or about different questions.
    """
    if not paths:
        return None
    runs = sorted((outcome.read(p) for p in paths), key=lambda run: float(run["ratio"]))
    if len(data := {run["data"] for run in runs}) > 1:
        raise LuvcError(f"--accuracy files are about {', '.join(sorted(data))}; give one data set")
    tasks = list(dict.fromkeys(task for run in runs for task in run["tasks"]))
    found = {
        task: [(r["ratio"], r["tasks"][task]["accuracy"]) for r in runs if task in r["tasks"]]
        for task in tasks
    }
    lines = [{"name": t, "points": points} for t, points in found.items()]
    several = len({run["ratio"] for run in runs}) > 1
    return {"title": data.pop(), "tasks": tasks, "runs": runs, "curves": lines if several else []}


def latency(bench: dict[str, Any]) -> list[dict[str, Any]]:
    """Medians of a luvc-bench report, a group per batch size."""
    groups = []
    for batch in bench["settings"]["batches"]:
        rows = [c for c in bench["cases"] if c["batch"] == batch]
        found = [
            {"name": c["system"]} | {key: c[key]["median"] if c[key] else 0.0 for _, key in ROWS}
            for c in rows
        ]
        if found:
            groups.append({"batch": batch, "rows": found})
    return groups
