"""Bar charts, line charts and small tables, and their questions."""

from __future__ import annotations

from random import Random

from . import backgrounds
from .drawing import Canvas, font
from .objects import COLOUR_NAMES, YES_NO
from .scene import Box, Chart, Question, Scene
from .vocabulary import COLOURS, DIGITS, LETTERS, SIZE

TOP_VALUE = 9
_INK = {False: "black", True: "white"}


def build_chart(rng: Random, taken: list[Box]) -> Scene:
    """Draw a scene that is filled by one chart."""
    width, height = rng.randint(140, 186), rng.randint(130, 180)
    x, y = rng.randint(2, SIZE - 2 - width), rng.randint(2, SIZE - 2 - height)
    box = (x, y, x + width, y + height)
    taken.append(box)
    kind, dark = rng.choice(("bar", "line", "table")), rng.random() < 0.3
    colour = rng.choice([c for c in COLOUR_NAMES if c not in ("white", "black", "yellow")])
    if kind == "table":
        columns, rows = rng.randint(2, 4), rng.randint(2, 4)
        values = tuple(tuple(rng.randrange(100) for _ in range(columns)) for _ in range(rows))
    else:
        columns = rng.randint(3, 6)
        values = (tuple(rng.randint(kind == "bar", TOP_VALUE) for _ in range(columns)),)
    first = rng.choice((0, 0, 0, 6, 12, 18))
    labels = tuple(LETTERS[first : first + columns])
    chart = Chart(kind, labels, values, box, colour, dark, rng.random() < 0.3)
    return Scene(backgrounds.sample(rng), (), (), chart)


def draw_chart(canvas: Canvas, chart: Chart) -> None:
    """Draw a chart on its panel."""
    panel = (28, 30, 38) if chart.dark else (252, 252, 250)
    canvas.draw.rectangle(chart.box, fill=panel, outline=(128, 128, 128), width=canvas.scale)
    (_draw_table if chart.kind == "table" else _draw_plot)(canvas, chart)


def _centred(canvas: Canvas, string: str, x: float, y: float, size: int, colour: str) -> None:
    """Draw a text with its ink centred on (x, y); `size` is what it is at scale 1."""
    face = font("DejaVuSans", size * canvas.scale)
    left, top, right, bottom = face.getbbox(string)
    canvas.letters(string, x - (left + right) / 2, y - (top + bottom) / 2, face, colour)


def _draw_plot(canvas: Canvas, chart: Chart) -> None:
    """Bars or a line over an axis from 0 to 9 with grid lines at 0, 3, 6 and 9."""
    left, top, right, bottom = chart.box
    scale = canvas.scale
    x0 = left + 20 * scale
    x1 = right - 6 * scale
    y0 = bottom - 18 * scale
    y1 = top + 18 * scale
    unit, step = (y0 - y1) / TOP_VALUE, (x1 - x0) / len(chart.labels)
    ink, draw = _INK[chart.dark], canvas.draw
    for value in (0, 3, 6, 9):
        y = round(y0 - value * unit)
        draw.line((x0, y, x1, y), fill=(150, 150, 150), width=scale)
        _centred(canvas, str(value), left + 10 * scale, y, 11, ink)
    values = chart.values[0]
    points = [(x0 + (k + 0.5) * step, y0 - v * unit) for k, v in enumerate(values)]
    if chart.kind == "bar":
        half = 0.32 * step
        for x, y in points:
            draw.rectangle((x - half, y, x + half, y0), fill=COLOURS[chart.colour])
    else:
        draw.line(points, fill=COLOURS[chart.colour], width=2 * scale)
        for x, y in points:
            box = (x - 3 * scale, y - 3 * scale, x + 3 * scale, y + 3 * scale)
            draw.ellipse(box, fill=COLOURS[chart.colour])
    for (x, y), label, value in zip(points, chart.labels, values, strict=True):
        _centred(canvas, label, x, bottom - 9 * scale, 12, ink)
        if chart.printed:
            _centred(canvas, str(value), x, y - 8 * scale, 11, ink)


def _draw_table(canvas: Canvas, chart: Chart) -> None:
    """Numbers under column letters and beside row numbers, with rules between."""
    left, top, right, bottom = chart.box
    wide = (right - left) / (len(chart.labels) + 1)
    high = (bottom - top) / (len(chart.values) + 1)
    rules = [(left, top + n * high, right, top + n * high) for n in range(1, len(chart.values) + 1)]
    for rule in (*rules, (left + wide, top, left + wide, bottom)):
        canvas.draw.line(rule, fill=(150, 150, 150), width=canvas.scale)
    for column, label in enumerate(chart.labels, 1):
        _centred(canvas, label, left + (column + 0.5) * wide, top + high / 2, 14, chart.colour)
    for row, values in enumerate(chart.values, 1):
        y = top + (row + 0.5) * high
        _centred(canvas, str(row), left + wide / 2, y, 14, chart.colour)
        for column, value in enumerate(values, 1):
            x = left + (column + 0.5) * wide
            _centred(canvas, str(value), x, y, 14, _INK[chart.dark])


def ask_chart(rng: Random, scene: Scene) -> Question | None:
    """Ask for a value, an extreme, a comparison or a table cell."""
    chart = scene.chart
    if chart is None:
        return None
    if chart.kind == "table":
        row, column = rng.randrange(len(chart.values)), rng.randrange(len(chart.labels))
        text = f"What number is in row {row + 1}, column {chart.labels[column]}?"
        options = tuple(str(number) for number in range(100))
        return Question("chart", text, str(chart.values[row][column]), options, "table")
    values, kind = chart.values[0], rng.choice(("value", "extreme", "greater"))
    if kind == "value":
        k = rng.randrange(len(values))
        text = f"What is the value of {chart.labels[k]}?"
        return Question("chart", text, str(values[k]), DIGITS, f"{chart.kind} value")
    if kind == "extreme":
        which, extreme = rng.choice((("highest", max(values)), ("lowest", min(values))))
        if values.count(extreme) > 1:
            return None
        answer = chart.labels[values.index(extreme)]
        text = f"Which {'bar' if chart.kind == 'bar' else 'point'} is the {which}?"
        return Question("chart", text, answer, chart.labels, f"{chart.kind} extreme")
    a, b = rng.sample(range(len(values)), 2)
    if values[a] == values[b]:
        return None
    text = f"Is {chart.labels[a]} greater than {chart.labels[b]}?"
    return Question("chart", text, YES_NO[values[a] < values[b]], YES_NO, f"{chart.kind} greater")
