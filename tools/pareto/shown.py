"""What was found, as a table and on one HTML page."""

from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.table import Table

from ...exporter.report import human
from ..report import templates
from ..report.charts import Drawing

HERE = Path(__file__).parent
WIDE, HIGH = 1000, 420
LEFT, RIGHT = 70, 170
TOP, BOTTOM = 20, 50
LOST = "lost, points"


def table(data: dict[str, Any]) -> Table:
    """One row a point; what is wide is on the page."""
    found = Table(
        title=f"{data['model']}, {len(data['questions'])} questions", title_justify="left"
    )
    found.add_column("method")
    for name in header(data):
        if name != "FLOPs":
            found.add_column(name, justify="right")
    for point in data["points"]:
        told = zip(header(data), cells(data, point), strict=True)
        shown = [
            text.split(" [")[0] if name != LOST else text for name, text in told if name != "FLOPs"
        ]
        found.add_row(point["method"], *shown, style="bold" if point["best"] else None)
    return found


def header(data: dict[str, Any]) -> list[str]:
    """Names of the columns behind the method."""
    names = ["asked", "prefill", "both", "tokens", "FLOPs"]
    names += ["ms"] * _timed(data)
    names += ["right, %", LOST] * _answered(data)
    return [*names, "same, %"]


def cells(data: dict[str, Any], point: dict[str, Any]) -> list[str]:
    """What stands behind a method."""
    found = [f"{point['ratio']:g}x", f"{point['prefill']:.2f}x", f"{point['both']:.2f}x"]
    found += [f"{point['tokens']:.0f}", human(point["flops"])]
    if _timed(data):
        found.append(f"{point['ms']:.1f}")
    if _answered(data):
        value, low, high = (0 - 100 * point["gain"][name] for name in ("value", "high", "low"))
        found.append(_share(point["right"]))
        found.append(f"{value:+.1f} [{low:+.1f}, {high:+.1f}]" if point["ratio"] > 1 else "")
    return [*found, _share(point["same"])]


def _share(share: dict[str, float]) -> str:
    value, low, high = (100 * share[name] for name in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _answered(data: dict[str, Any]) -> bool:
    return data["points"][0]["right"] is not None


def _timed(data: dict[str, Any]) -> bool:
    return data["points"][0]["ms"] is not None


def page(data: dict[str, Any]) -> str:
    """One HTML page; nothing in it is loaded from anywhere."""
    return templates.render(
        HERE,
        data=data,
        header=header(data),
        rows=[(p, cells(data, p)) for p in data["points"]],
        chart=chart(data),
        answered=_answered(data),
    )


def chart(data: dict[str, Any]) -> Markup:
    """Answers over FLOPs: a line for each method, from the unmodified model on."""
    name = "right" if _answered(data) else "same"
    full, *others = [(p["method"], p["flops"], p[name]["value"]) for p in data["points"]]
    flops, values = zip(*[(f, v) for _, f, v in (full, *others)], strict=True)
    low, high = max(0.0, min(values) - 0.03), min(1.0, max(values) + 0.02)
    drawing = Drawing(WIDE, HIGH, "answers over FLOPs")

    def place(work: float, value: float) -> tuple[float, float]:
        x = LEFT + work / max(flops) * (WIDE - LEFT - RIGHT)
        return x, HIGH - BOTTOM - (value - low) / (high - low) * (HIGH - TOP - BOTTOM)

    for step in range(5):
        value, work = low + (high - low) * step / 4, max(flops) * step / 4
        x, y = place(work, value)
        drawing.path(f"M{LEFT} {y:.1f}H{WIDE - RIGHT}", "line")
        drawing.text(LEFT - 10, y + 4, f"{value:.0%}", "quiet", "end")
        drawing.text(x, HIGH - BOTTOM + 24, human(work), "quiet")
    drawing.text((LEFT + WIDE - RIGHT) / 2, HIGH - 6, "FLOPs of tower and prefill", "quiet")
    for number, method in enumerate(dict.fromkeys(m for m, *_ in others)):
        spots = [place(f, v) for m, f, v in (full, *others) if m in (full[0], method)]
        drawing.path("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in spots), f"curve c{number % 6}")
        for x, y in spots[1:]:
            drawing.raw(f'<circle class="c{number % 6}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        drawing.text(
            WIDE - RIGHT + 20, TOP + 20 + 20 * number, method, f"name c{number % 6}", "start"
        )
    return drawing.done()
