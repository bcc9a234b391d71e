"""Plans and validation reports as tables for people."""

import itertools
from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..dtypes import DTYPES
from ..engines.bundle.layout import Layout
from ..engines.bundle.report import JoinReport, KeptReport
from ..engines.bundle.schedule import Stage
from ..engines.validate import Report
from .checkpoint.family import Family
from .config import ExportConfig
from .layouts.notes import notes
from .layouts.planned import Planned
from .planning.defaults import SolverOptions, shown
from .planning.flops import decoder_layers, encoder_layer
from .planning.methods import METHODS, spec_of
from .planning.problem import Problem
from .prepare import planned_weights
from .timing.latency import Timed

TEXT_ONLY = "questions without a picture; no visual tokens, nothing to compress"
COUNTED = ("flops", "baseline_flops", "kv_bytes", "baseline_kv_bytes")
ALIKE = 0.5  # part of a stage's tokens whose scores may lie together before that is told


def human(value: float) -> str:
    """1.23e9 -> "1.23 G"."""
    for unit in ("", "k", "M", "G", "T"):
        if abs(value) < 1000:
            return f"{value:.3g} {unit}".rstrip()
        value /= 1000
    return f"{value:.3g} P"


def stage_rows(family: Family, layout: Layout, text_tokens: int, dtype: str) -> list[dict]:
    """Per stage of the language model: layers, visual tokens, FLOPs and KV bytes beside the baseline."""
    d, rows = family.decoder, []

    def kept(stage: Stage, tokens: int) -> int:
        layers = range(stage.first, stage.last + 1)
        item = DTYPES[dtype].bytes
        return sum(family.language.kept_bytes(i, tokens, item) for i in layers)

    for stage in layout.stages:
        before = layout.baseline_visual_tokens + text_tokens
        rows.append(
            {
                "first": stage.first,
                "last": stage.last,
                "visual_tokens": stage.visual,
                "flops": decoder_layers(d, stage.first, stage.last, stage.visual + text_tokens),
                "baseline_flops": decoder_layers(d, stage.first, stage.last, before),
                "kv_bytes": kept(stage, stage.visual + text_tokens),
                "baseline_kv_bytes": kept(stage, before),
            }
        )
    return rows


def weights_json(family: Family, config: ExportConfig) -> dict:
    """The bundle's weights file as data."""
    planned = planned_weights(family, config)
    return {
        "bytes": planned.bytes,
        "dtype": config.dtype,
        "products": planned.rounding.how.model_dump() if planned.rounding else None,
        "quantised_as": family.format.about if family.format else None,
    }


def weights_line(family: Family, config: ExportConfig) -> Text:
    """What the weights of a bundle take on disk."""
    planned = planned_weights(family, config)
    products = f", the language model's products {planned.rounding.how}" if planned.rounding else ""
    told = f"weights: {human(planned.bytes)}B, {config.dtype}{products}"
    if family.format:
        kept = "kept where a bundle can" if planned.rounding else "made numbers"
        told += f"; the checkpoint's are {family.format.about}: {kept}"
    return Text(told)


def plan_json(family: Family, planned: Planned, config: ExportConfig) -> dict:
    """A plan as data."""
    layout, text_tokens = planned.layout, config.reference_text
    hidden = {"graphs", "processor_options", "expansion"}
    return {
        "layout": layout.model_dump(mode="json", exclude=hidden),
        "reference_text_tokens": text_tokens,
        "stages": stage_rows(family, layout, text_tokens, config.dtype),
        "notes": _all_notes(family, planned, config) if planned.problem else [TEXT_ONLY],
    }


def plan_table(family: Family, planned: Planned, config: ExportConfig) -> list[RenderableType]:
    """A plan as a table: one row a stage, sums below, then ratios and notes."""
    layout, problem = planned.layout, planned.problem
    if problem is None:
        return [Text.from_markup(f"[bold]{layout.name}[/bold]: {TEXT_ONLY}")]
    title = _title(layout, config.reference_text)
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("stage")
    bytes_kept = f"KV bytes ({config.dtype})"
    for name in ("layers", "visual tokens", "FLOPs", "of baseline", bytes_kept, "of baseline"):
        table.add_column(name, justify="right")
    for row in _vision_rows(problem, layout):
        table.add_row(*row)
    table.add_section()
    rows = stage_rows(family, layout, config.reference_text, config.dtype)
    for row in rows:
        layers = _span(row["first"], row["last"])
        table.add_row("language", layers, str(row["visual_tokens"]), *_beside_baseline(row))
    table.add_section()
    sums = {name: sum(row[name] for row in rows) for name in COUNTED}
    table.add_row("all layers", "", "", *_beside_baseline(sums))
    r = layout.ratios
    ratios = Text(
        f"ratios (baseline / compressed FLOPs): vision {r.vision:.2f}x, language prefill "
        f"{r.prefill:.2f}x, both {r.both:.2f}x"
    )
    return [table, ratios, *(Text(f"note: {n}") for n in _all_notes(family, planned, config))]


def _all_notes(family: Family, planned: Planned, config: ExportConfig) -> list[str]:
    """What is told beside the numbers of a plan, of its schedule and of its checkpoint."""
    found = notes(planned, _options(config))
    lost = family.unembedded
    if lost:
        found.append(
            f"the embedding has no row for {len(lost)} of the tokenizer's tokens, such as {lost[0]!r:.80}: "
            "a question that holds one is refused"
        )
    return found


def _options(config: ExportConfig) -> SolverOptions | None:
    return None if config.schedule else config.solver


def _beside_baseline(row: dict) -> tuple[str, str, str, str]:
    """FLOPs and K/V bytes, each with its share of the baseline's."""
    return (
        human(row["flops"]),
        f"{row['flops'] / row['baseline_flops']:.0%}",
        human(row["kv_bytes"]),
        f"{row['kv_bytes'] / row['baseline_kv_bytes']:.0%}",
    )


def _span(first: int, last: int) -> str:
    return f"{first}-{last}" if last > first else str(first)


def _title(layout: Layout, text_tokens: int) -> str:
    images = f"{layout.images} image{'s' if layout.images > 1 else ''}"
    tiles = f"{layout.tiles} tile{'s' if layout.tiles > 1 else ''} each"
    return (
        f"{layout.name}: {images}, {tiles}, {layout.baseline_visual_tokens} -> "
        f"{layout.visual_tokens} visual tokens at the language model, {text_tokens} text tokens"
    )


def methods_table() -> Table:
    """Every method on a row: what it does, what it needs, what its score can be told."""
    table = Table("method", "what it does", "needs", "options")
    for name, method in METHODS.items():
        score, scores = method.score, method.options.smaller == "none"
        told = spec_of(score).options if scores else {}
        options = ", ".join(f"{k}={shown(v)}" for k, v in told.items())
        needs = ", ".join(sorted(score.reads) if scores else ()) or "nothing more"
        table.add_row(name, method.about, needs, options)
    return table


def _vision_rows(problem: Problem, layout: Layout) -> Iterator[tuple[str, ...]]:
    """One row per run of vision layers with the same grid, and one for a smaller grid behind them."""
    encoder, first = problem.encoder, 0
    full = problem.baseline
    for grid, run in itertools.groupby(problem.grids(layout.schedule)):
        layers = range(first, first + len(list(run)))
        flops = problem.tiles * sum(encoder_layer(encoder, grid.tokens, i) for i in layers)
        baseline = full.tiles * sum(encoder_layer(encoder, full.grid.tokens, i) for i in layers)
        tokens, span = f"{problem.tiles} x {grid.h}x{grid.w}", _span(layers[0], layers[-1])
        yield "vision", span, tokens, human(flops), f"{flops / baseline:.0%}", "", ""
        first = layers.stop
    if layout.schedule.restore:
        tokens = f"{problem.tiles} x {problem.grid.h}x{problem.grid.w}"
        merging = human(problem.tiles * problem.merge_flops(layout.schedule))
        yield "restored", "", tokens, merging, "", "", ""
    if exit := layout.schedule.exit:
        tokens = f"{problem.tiles} x {exit.rows}x{exit.columns}"
        yield exit.how, "", tokens, human(problem.tiles * problem.exit_flops(exit)), "", "", ""


def timed_line(timed: Timed) -> Text:
    """What a schedule for a ratio of time was predicted to do and did."""
    what = "prefill latency" if timed.of == "latency" else timed.what
    return Text(
        f"{what}: asked {timed.asked:.2f}x, predicted {timed.predicted:.2f}x, measured "
        f"{timed.measured:.2f}x ({timed.baseline_ms:.1f} ms to {timed.compressed_ms:.1f} ms)"
    )


def validation_table(report: Report) -> list[RenderableType]:
    """A validation report as two tables and a verdict."""
    title = f"{report.layout}: {report.backend} against PyTorch float32 ({report.dtype} weights)"
    if report.layers > report.compared:
        title += f", the first {report.compared} of {report.layers} language layers"
    if report.rounded:
        title += ", kernels that round activations"
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in ("stage", "visual tokens", "max abs error", "relative", "cosine", "norm ratio", ""):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for s in report.stages:
        table.add_row(
            s.name,
            "" if s.visual is None else str(s.visual),
            f"{s.max_abs_error:.1e}",
            f"{s.relative_error:.1e}",
            f"{s.cosine:.6f}",
            f"{s.norm_ratio:.6f}",
            _verdict(s.passed),
        )
    lines = _choices(report)
    equal = f"{report.greedy_equal} of {report.greedy_tokens} greedy tokens equal"
    if report.greedy_equal < report.greedy_tokens and report.greedy_tie:
        equal += " (then tied logits)"
    return [table, *lines, Text.from_markup(f"{equal} {_verdict(report.passed)}")]


def _choices(report: Report) -> list[Text]:
    """What was joined and kept, a line each."""
    chosen: list[tuple[str, JoinReport | KeptReport, int]] = [
        (f"joined before tower layer {j.layer}, {j.axis}", j, j.joins) for j in report.joined
    ]
    chosen += [(f"kept before layer {k.layer}", k, k.keep) for k in report.kept]
    lines = [
        f"{what}: {x.overlap:.2%} of {count} in common, {x.overlap_without_ties:.2%} with {x.ties} ties "
        f"aside {_verdict(x.passed)}"
        for what, x, count in chosen
    ]
    lines += [
        f"[yellow]before layer {k.layer} {k.alike:.0%} of the tokens score alike[/yellow], so which of them "
        "stay says little: try another --band, --cutoff or --signal"
        for k in report.kept
        if k.alike > ALIKE
    ]
    return [Text.from_markup(line) for line in lines]


def _verdict(passed: bool) -> str:
    return "[green]pass[/green]" if passed else "[bold red]FAIL[/bold red]"
