"""The report's drawings as inline SVG; colours are classes, so that light, dark and print differ."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

from .overlay import Box, Look, Sample

WIDTH, HEIGHT = 1080, 296
TOP, FLOOR = 70, 242  # of the bars
ARROWS = {"width": "\N{LEFT RIGHT ARROW}", "height": "\N{UP DOWN ARROW}"}


class Drawing:
    """An SVG that grows by shapes.

    Args:
        width, height: of the viewBox.
        title: what a screen reader says.
    """

    def __init__(self, width: float, height: float, title: str):
        self._head = (
            f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}" '
            'xmlns="http://www.w3.org/2000/svg">'
        )
        self._parts: list[str] = []

    def rect(self, x: float, y: float, w: float, h: float, kind: str, tip: str = "") -> None:
        """A rectangle of a class, with a tooltip."""
        inside = f"<title>{escape(tip)}</title>" if tip else ""
        self._parts.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" '
            f'rx="1.5">{inside}</rect>'
        )

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> None:
        """A line of text."""
        self._parts.append(
            f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
        )

    def path(self, d: str, kind: str) -> None:
        """A path."""
        self._parts.append(f'<path class="{kind}" d="{d}"/>')

    def raw(self, markup: str) -> None:
        """Markup made here."""
        self._parts.append(markup)

    def done(self) -> Markup:
        """The element."""
        return Markup(self._head + "".join(self._parts) + "</svg>")


def token_flow(facts: dict[str, Any]) -> Markup:
    """Tokens in every layer of the vision tower and the language model, over those of ratio 1."""
    schedule = facts["layout"].schedule
    grids, visual = facts["grids"], facts["visual"]
    drawing = Drawing(WIDTH, HEIGHT, "tokens per layer")
    share = len(grids) / (len(grids) + len(visual))
    split = WIDTH * min(max(share, 0.25), 0.5)
    marks: dict[int, str] = {}
    for merge in schedule.vision:
        marks[merge.layer] = marks.get(merge.layer, "OIM ") + ARROWS[merge.axis]
    _panel(drawing, 0, split - 24, grids, facts["vision_baseline"], marks, "vision", "vision tower")
    names = {p.layer: "SPU" if p.keep else "gone" for p in schedule.language}
    if schedule.exit:
        names[0] = schedule.exit.how
    base = facts["layout"].baseline_visual_tokens
    _panel(drawing, split + 24, WIDTH, visual, base, names, "language", "language model")
    return drawing.done()


def _panel(
    drawing: Drawing,
    left: float,
    right: float,
    counts: Sequence[int],
    baseline: int,
    marks: dict[int, str],
    kind: str,
    title: str,
) -> None:
    step = (right - left) / len(counts)
    gap = min(3.0, step * 0.2)
    unit = "tokens a tile" if kind == "vision" else "visual tokens"
    drawing.text(left, 14, title, "title", "start")
    for layer, count in enumerate(counts):
        x = left + layer * step
        drawing.rect(
            x, TOP, step - gap, FLOOR - TOP, "ghost", f"layer {layer}: {baseline} at ratio 1"
        )
        height = (FLOOR - TOP) * count / baseline
        if count:
            drawing.rect(x, FLOOR - height, step - gap, height, kind, f"layer {layer}: {count}")
    starts = [i for i, c in enumerate(counts) if i == 0 or c != counts[i - 1]]
    for n, layer in enumerate(starts):
        x = left + layer * step
        last = n + 1 == len(starts)
        wide = (len(counts) if last else starts[n + 1]) - layer
        anchor, at = ("end", right) if last and wide * step < 60 else ("start", x)
        drawing.text(at, TOP - 8, str(counts[layer]), "number", anchor)
        if layer in marks:
            drawing.text(at, TOP - 27, marks[layer], f"mark {kind}-ink", anchor)
        drawing.text(x + (step - gap) / 2, FLOOR + 18, str(layer), "quiet")
    drawing.text(left, HEIGHT - 8, "layer", "quiet", "start")
    drawing.text(right - gap, HEIGHT - 8, f"{baseline} {unit} at ratio 1", "quiet", "end")


def look(sample: Sample, number: int, seen: Look | None) -> Markup:
    """A picture with what a stage dropped veiled; without a stage the grid of visual tokens."""
    title = f"{sample.title}: all visual tokens"
    if seen:
        title = f"{sample.title}: kept from layer {seen.layer} on"
    drawing = Drawing(sample.width, sample.height, title)
    drawing.raw(f'<use href="#picture{number}"/>')
    if seen is None:
        drawing.path(boxes(sample.cells), "cells")
    else:
        drawing.path(boxes(seen.gone), "veil")
    return drawing.done()


def boxes(found: Sequence[Box]) -> str:
    """Rectangles as the data of one path."""
    return "".join(f"M{x:.1f} {y:.1f}h{w:.1f}v{h:.1f}h{-w:.1f}z" for x, y, w, h in found)


def curves(accuracy: dict[str, Any]) -> Markup:
    """Accuracy over ratio, a line for each task, named at its end."""
    lines = accuracy["curves"]
    points = [p for line in lines for p in line["points"]]
    low, high = min(a for _, a in points), max(a for _, a in points)
    low, high = max(0.0, low - 0.05), min(1.0, high + 0.03)
    first, last = min(r for r, _ in points), max(r for r, _ in points)
    drawing = Drawing(WIDTH, 340, "accuracy over ratio")

    def place(ratio: float, value: float) -> tuple[float, float]:
        x = 60 + (ratio - first) / max(last - first, 1e-9) * (WIDTH - 260)
        return x, 300 - (value - low) / max(high - low, 1e-9) * 270

    for i in range(5):
        value = low + (high - low) * i / 4
        y = place(first, value)[1]
        drawing.path(f"M60 {y:.1f}H{WIDTH - 200}", "line")
        drawing.text(50, y + 4, f"{value:.0%}", "quiet", "end")
    for ratio in sorted({r for r, _ in points}):
        drawing.text(place(ratio, low)[0], 324, f"{ratio:g}x", "quiet")
    ends = _apart([place(*line["points"][-1])[1] for line in lines])
    for n, (line, label) in enumerate(zip(lines, ends, strict=True)):
        spots = [place(*p) for p in line["points"]]
        drawing.path("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in spots), f"curve c{n % 6}")
        for (x, y), (ratio, value) in zip(spots, line["points"], strict=True):
            drawing.raw(
                f'<circle class="c{n % 6}" cx="{x:.1f}" cy="{y:.1f}" r="4">'
                f"<title>{ratio:g}x: {value:.1%}</title></circle>"
            )
        drawing.text(spots[-1][0] + 12, label + 4, str(line["name"]), f"name c{n % 6}", "start")
    return drawing.done()


def _apart(heights: list[float], gap: float = 17) -> list[float]:
    """Label positions at least `gap` apart, in the order of the heights."""
    placed, floor = [0.0] * len(heights), float("-inf")
    for i in sorted(range(len(heights)), key=heights.__getitem__):
        placed[i] = floor = max(heights[i], floor + gap)
    return placed
