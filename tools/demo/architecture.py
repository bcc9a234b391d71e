"""Draws the rooms of the source and who imports whom, read from the imports themselves.

python -m luvc.tools.demo.architecture docs/architecture.svg
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).resolve().parent.parent.parent
FLOORS = ("tools", "exporter", "engines", "plugins")
SPLIT = ("exporter", "engines")
"""Floors whose folders are rooms of their own."""
EXPORT = (
    "exporter/checkpoint",
    "exporter/planning",
    "exporter/vision",
    "exporter/language",
    "exporter/onnx",
    "engines/bundle",
    "exporter/check",
)
RUN = ("engines/serving", "engines", "engines/backends", "plugins")
"""The way of the data through the rooms, of an export and of an answer; drawn as numbers."""

Graph = dict[str, set[str]]
WIDE = 214
HIGH = 76
ACROSS = 22
DOWN = 54
LEFT = 12
INK = "#1e293b"
GREY = "#94a3b8"
BLUE = "#2563eb"
GREEN = "#15803d"
FILL = {"tools": "#f1f5f9", "exporter": "#dbeafe", "engines": "#dcfce7", "plugins": "#fef3c7"}


def imported(file: Path) -> Iterator[Path]:
    """Files of the project that a file imports, also late."""
    folder = file.parent
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = folder.joinpath(*[".."] * (node.level - 1), *(node.module or "").split("."))
        for alias in node.names:
            for path in (base / alias.name, base):
                if path.with_suffix(".py").is_file():
                    yield path.with_suffix(".py").resolve()
                    break
                if path.is_dir():
                    yield (path / "__init__.py").resolve()
                    break


def room(file: Path, alone: set[Path]) -> str:
    """The box a file is drawn in: its floor, a folder of its floor, or itself."""
    place = file.relative_to(ROOT)
    floor, *inside = place.parts
    if floor not in FLOORS:
        return ""
    if file in alone:
        return place.as_posix()
    return f"{floor}/{inside[0]}" if floor in SPLIT and len(inside) > 1 else floor


def rooms(alone: set[Path]) -> Graph:
    """Which rooms a room imports."""
    graph: Graph = {}
    for floor in FLOORS:
        for file in sorted(ROOT.joinpath(floor).rglob("*.py")):
            here = room(file, alone)
            there = {room(target, alone) for target in imported(file)} - {here, ""}
            graph.setdefault(here, set()).update(there)
    return graph


def reach(graph: Graph, start: str) -> set[str]:
    """Every room that can be reached from one."""
    seen: set[str] = set()
    left = list(graph[start])
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += graph[name]
    return seen


def imports() -> Graph:
    """The rooms without a circle: files that the rooms inside of a floor need get a box of their own.

    Raises:
        ValueError: rooms import each other in a circle.
    """
    graph = rooms(set())
    circle = {name for name in graph if name in reach(graph, name)}
    left = [f for name in circle - set(FLOORS) for f in ROOT.joinpath(name).rglob("*.py")]
    alone: set[Path] = set()
    while left:
        found = {file for file in imported(left.pop()) if room(file, set()) in circle & set(FLOORS)}
        left += found - alone
        alone |= found
    graph = rooms(alone)
    for name in graph:
        if name in reach(graph, name):
            raise ValueError(f"{name} is part of a circle of imports")
    return graph


def reduced(graph: Graph) -> Graph:
    """Without the arrows that a longer way says already."""
    return {
        name: {to for to in found if not any(to in reach(graph, other) for other in found - {to})}
        for name, found in graph.items()
    }


def purpose(name: str) -> str:
    """The first line of a room's docstring."""
    path = ROOT / name
    text = (path if path.is_file() else path / "__init__.py").read_text()
    line = (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
    return re.sub(r": `.*", ".", line).replace("`", "")


def places(graph: Graph) -> dict[str, tuple[int, int]]:
    """The corner of each box: below everything that imports it; the engines have the right-hand side."""
    depth: dict[str, int] = {}
    for name in sorted(graph, key=lambda n: -len(reach(graph, n))):
        above = [depth[other] for other, found in graph.items() if name in found]
        depth[name] = max(above, default=-1) + 1
    rows: dict[tuple[int, bool], list[str]] = {}
    for name in sorted(graph):
        rows.setdefault((depth[name], name.startswith("engines")), []).append(name)
    step = WIDE + ACROSS
    widest = [
        max(len(v) for (_, side), v in rows.items() if side == right) for right in (False, True)
    ]
    found: dict[str, tuple[int, int]] = {}
    for (row, right), names in rows.items():
        start = LEFT + right * widest[0] * step + (widest[right] - len(names)) * step // 2
        for i, name in enumerate(names):
            found[name] = start + i * step, LEFT + row * (HIGH + DOWN)
    return found


def box(name: str, x: int, y: int) -> str:
    """A room: its name, what it is for, its numbers on the way of the data."""
    lines = textwrap.wrap(purpose(name), 34, max_lines=3, placeholder=" ...")
    fill = FILL[name.split("/")[0]]
    parts = [
        f'<rect x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" rx="6" fill="{fill}" stroke="{GREY}"/>',
        f'<text x="{x + 9}" y="{y + 19}" font-size="13" font-weight="bold">{name}</text>',
    ]
    parts += [
        f'<text x="{x + 9}" y="{y + 36 + 14 * i}" font-size="10.5">{escape(line)}</text>'
        for i, line in enumerate(lines)
    ]
    right = x + WIDE - 14
    for way, colour in ((RUN, GREEN), (EXPORT, BLUE)):
        if name in way:
            parts.append(
                f'<circle cx="{right}" cy="{y + 14}" r="9" fill="{colour}"/><text x="{right}" '
                f'y="{y + 18}" font-size="11" fill="white" text-anchor="middle">{way.index(name) + 1}</text>'
            )
            right -= 22
    return "\n".join(parts)


def arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    """From the lower edge of a box to the upper edge of another."""
    x, y = start[0] + WIDE // 2, start[1] + HIGH
    to, top = end[0] + WIDE // 2, end[1] - 4
    bend = (top - y) // 2
    path = f"M{x},{y} C{x},{y + bend} {to},{top - bend} {to},{top}"
    return (
        f'<path d="{path}" fill="none" stroke="{GREY}" stroke-width="1.3" marker-end="url(#tip)"/>'
    )


def draw() -> str:
    """The picture as SVG."""
    graph = imports()
    at = places(graph)
    width = max(x for x, _ in at.values()) + WIDE + LEFT
    height = max(y for _, y in at.values()) + HIGH + 40
    legend = (
        f'<circle cx="{LEFT + 9}" cy="{height - 16}" r="9" fill="{BLUE}"/>'
        f'<text x="{LEFT + 24}" y="{height - 12}" font-size="12">the way of an export</text>'
        f'<circle cx="{LEFT + 189}" cy="{height - 16}" r="9" fill="{GREEN}"/>'
        f'<text x="{LEFT + 204}" y="{height - 12}" font-size="12">the way of an answer</text>'
        f'<text x="{LEFT + 360}" y="{height - 12}" font-size="12">arrows: imports</text>'
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'font-family="Helvetica, Arial, sans-serif" fill="{INK}">\n'
        '<marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{GREY}"/></marker>\n'
        f'<rect width="{width}" height="{height}" fill="white"/>'
    )
    lines = reduced(graph)
    arrows = [arrow(at[name], at[to]) for name in sorted(lines) for to in sorted(lines[name])]
    boxes = [box(name, x, y) for name, (x, y) in sorted(at.items())]
    return "\n".join([head, *arrows, *boxes, legend, "</svg>", ""])


def main(file: Annotated[Path, typer.Argument(help="SVG file to write.")]) -> None:
    """Draw the rooms."""
    file.write_text(draw())


if __name__ == "__main__":
    typer.run(main)
