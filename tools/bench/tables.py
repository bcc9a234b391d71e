"""A benchmark report as tables for people: a column a system, speed-ups beside the first one."""

from collections.abc import Callable
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

ROWS = (
    ("images to arrays, ms", "pixels_ms"),
    ("vision, ms", "vision_ms"),
    ("LLM prefill, ms", "prefill_ms"),
    ("time to first token, ms", "first_token_ms"),
    ("decode, ms per token", "decode_ms_per_token"),
)
SIZES = (
    ("K/V of the prompt, MiB", "kv_bytes", 2**20),
    ("K/V allocated, MiB", "kv_allocated_bytes", 2**20),
    ("peak memory, MiB", "peak_mib", 1),
    ("device memory, MiB", "device_bytes", 2**20),
)


def tables(report: dict[str, Any]) -> list[RenderableType]:
    """One table for each batch size, then what the systems are."""
    parts: list[RenderableType] = []
    for batch in report["settings"]["batches"]:
        parts.append(_batch_table([c for c in report["cases"] if c["batch"] == batch], batch))
    for system in report["systems"]:
        parts.append(
            Text(
                f"{system['name']}: {system['description']}, {system['dtype']}, ratio "
                f"{system['ratio']:g}, loaded in {system['load_ms'] / 1e3:.1f} s"
            )
        )
    s, m = report["settings"], report["machine"]
    where = f"{_counted(m['cores'], 'core')} of {m['cpu']}, {_counted(s['threads'], 'thread')}"
    parts.append(
        Text(
            f"median of {s['rounds']} interleaved rounds after {s['warmup']} to warm up, ± half the range; "
            f"{s['new_tokens']} tokens an answer, {where}"
        )
    )
    return parts


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _batch_table(cases: list[dict[str, Any]], batch: int) -> Table:
    first = cases[0]
    table = Table(title=f"batch {batch}", title_justify="left", title_style="bold")
    table.add_column("")
    for c in cases:
        table.add_column(c["system"], justify="right")
    for title, key in ROWS:
        if any(c[key] for c in cases):
            table.add_row(title, *(_measured(c[key], first[key], c is first) for c in cases))
    table.add_section()
    for title, key, unit in SIZES:
        if any(c.get(key) for c in cases):
            table.add_row(title, *(_size(c, first, key, unit) for c in cases))
    table.add_row("visual tokens a layer", *_each(cases, lambda c: _mean(c["visual_tokens"])))
    equal = f"tokens as {first['system']}"
    table.add_row(equal, *_each(cases, lambda c: _equal(first["token_ids"], c["token_ids"])))
    return table


def _each(cases: list[dict[str, Any]], text: Callable[[dict], str]) -> list[str]:
    return [text(c) for c in cases]


def _measured(value: dict | None, first: dict | None, is_first: bool) -> str:
    if value is None:
        return "-"
    digits = 1 if value["median"] < 100 else 0
    spread = (value["max"] - value["min"]) / 2 / value["median"] if value["median"] else 0
    text = f"{value['median']:.{digits}f} [dim]±{spread:.0%}[/dim]"
    if is_first or not first or not value["median"]:
        return text
    return f"{text} [bold]{first['median'] / value['median']:.2f}x[/bold]"


def _size(case: dict, first: dict, key: str, unit: int) -> str:
    if not case.get(key):
        return "-"
    text = f"{case[key] / unit:.1f}" if case[key] / unit < 100 else f"{case[key] / unit:.0f}"
    if case is first or not first.get(key):
        return text
    return f"{text} [bold]{first[key] / case[key]:.2f}x[/bold]"


def _mean(counts: list[int]) -> str:
    return f"{sum(counts) / len(counts):.0f}"


def _equal(a: list[list[int]] | None, b: list[list[int]] | None) -> str:
    """Leading tokens in common, over all rows; a system may tell only its text."""
    if a is None or b is None:
        return "-"
    total = equal = 0
    for x, y in zip(a, b, strict=True):
        total += len(x)
        equal += next((i for i, (s, t) in enumerate(zip(x, y, strict=True)) if s != t), len(x))
    return f"{equal} of {total}"
