"""What was found, as a table and on one HTML page."""

import math
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.table import Table

from ..report import templates
from ..report.charts import Drawing

HERE = Path(__file__).parent
WIDE, ROW = 1000, 44
LEFT, RIGHT = 150, 120
MORE = "more than tuned"
TRIED = 12
"""Candidates of a round that stand on the page; tune.json has all."""


def table(data: dict[str, Any]) -> Table:
    """The choice on the questions held out, beside the others; all intervals are on the page."""
    found = Table(title=_title(data), title_justify="left")
    found.add_column("plan")
    for name in header(data):
        found.add_column(name, justify="right")
    for row in data["held_out"]:
        style = "bold" if row is data["held_out"][0] else None
        told = zip(header(data), cells(data, row), strict=True)
        brief = [text if name == MORE else text.split(" [")[0] for name, text in told]
        found.add_row(row["name"], *brief, style=style)
    return found


def _title(data: dict[str, Any]) -> str:
    count = len(data["questions"]["held_out"])
    return f"{data['model']} at {data['ratio']:g}x, on {count} questions held out"


def header(data: dict[str, Any]) -> list[str]:
    """Names of the columns behind the plan."""
    names = ["prefill", "both", "tokens", "divergence", MORE, "same, %"]
    return [*names, *["right, %"] * (data["unmodified_right"] is not None)]


def cells(data: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """What stands behind a plan."""
    found = [f"{row['prefill']:.2f}x", f"{row['both']:.2f}x", f"{row['tokens']:.0f}"]
    found.append(interval(row["loss"], "{:.3f}"))
    own = row is data["held_out"][0]
    found.append("" if own else interval(row["less"], "{:+.3f}"))
    found.append(interval(row["same"], "{:.1f}", 100))
    return found if row["right"] is None else [*found, interval(row["right"], "{:.1f}", 100)]


def interval(share: dict[str, float], form: str, factor: float = 1) -> str:
    """A value and its interval."""
    value, low, high = (form.format(factor * share[name]) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def page(data: dict[str, Any]) -> str:
    """One HTML page; nothing in it is loaded from anywhere."""
    return templates.render(
        HERE,
        data=data,
        header=header(data),
        rows=[(row, cells(data, row)) for row in data["held_out"]],
        chart=chart(data["held_out"]),
        options=_options(data["chosen"]["options"]),
        interval=interval,
        most=TRIED,
    )


def _options(options: dict[str, Any]) -> list[tuple[str, str]]:
    """The choice, option by option."""
    score = options["score"]
    own = ", ".join(f"{name} {_said(value)}" for name, value in score["options"].items())
    first = ("score", f"{score['name']} ({own})" if own else score["name"])
    others = ((n.replace("_", " "), _said(v)) for n, v in options.items() if n != "score")
    return [first, *others]


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"{part:g}" for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def chart(rows: list[dict[str, Any]]) -> Markup:
    """Divergence of each plan with its interval; further left is nearer to the unmodified model."""
    high = max(row["loss"]["high"] for row in rows) or 1.0
    step = 10 ** math.floor(math.log10(high))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if high / s <= 8)
    bottom = 16 + ROW * len(rows)
    drawing = Drawing(WIDE, bottom + 40, "divergence on questions held out")

    def place(value: float) -> float:
        return LEFT + value / high * (WIDE - LEFT - RIGHT)

    for number in range(int(high / step) + 1):
        x = place(number * step)
        drawing.path(f"M{x:.1f} 8V{bottom}", "line")
        drawing.text(x, bottom + 20, f"{number * step:g}", "quiet")
    for number, row in enumerate(rows):
        y, loss = 16 + ROW * (number + 0.5), row["loss"]
        kind = f"c{0 if number == 0 else 5}"
        drawing.text(LEFT - 16, y + 5, row["name"], f"name {kind}", "end")
        drawing.path(f"M{place(loss['low']):.1f} {y}H{place(loss['high']):.1f}", f"curve {kind}")
        drawing.raw(f'<circle class="{kind}" cx="{place(loss["value"]):.1f}" cy="{y}" r="6"/>')
        drawing.text(place(loss["high"]) + 12, y + 5, f"{loss['value']:.3f}", "quiet", "start")
    return drawing.done()
