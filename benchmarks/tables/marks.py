"""Marked places of pages, `<!-- table:NAME -->` or `<!-- table:NAME batch 1 -->`.

NAME is a file of benchmarks/results, or pocket or pocket-hd for what the shipped models answer. Peers' files
have parts, `<!-- table:NAME weights int8 -->`, `<!-- table:NAME goals -->` and `<!-- table:NAME profile -->`.
"""

import json
import re
import sys
from pathlib import Path

from ..peers.goals import WEIGHTS, goals, profile
from .bench import bench, of_weights
from .records import export, latency_ratio, linear, pocket, prefix
from .serving import serving

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SHIPPED = {
    name: ROOT / "tools" / "pocket" / folder / "results.json"
    for name, folder in (("pocket", "model"), ("pocket-hd", "hd"))
}

TABLES = {
    "serving": serving,
    "latency_ratio": latency_ratio,
    "prefix": prefix,
    "export": export,
    "linear": linear,
    "pocket": pocket,
    "pocket-hd": pocket,
}


def _made(name: str, part: list[str]) -> str:
    """The text of a mark; one that names no table ends the program."""
    file = SHIPPED.get(name, RESULTS / f"{name}.json")
    mark = f"<!-- table:{' '.join([name, *part])} -->"
    if not file.is_file():
        sys.exit(f"{mark}: {file} is not there: correct the name, or run what records it")
    data = json.loads(file.read_text())
    if name in TABLES and part:
        sys.exit(f"{mark}: {name} has no parts")
    if name in TABLES:
        return TABLES[name](data)
    batches = [str(size) for size in data["settings"]["batches"]]
    match part:
        case []:
            return bench(data)
        case ["batch", size] if size in batches:
            return bench(data, int(size))
        case ["weights", kind] if kind in WEIGHTS:
            return of_weights(data, kind)
        case ["goals"]:
            return goals(data)
        case ["profile"]:
            return profile(data)
    parts = f"`batch` with {' or '.join(batches)}, `weights` with {' or '.join(WEIGHTS)}"
    sys.exit(f"{mark}: the parts of {file.name} are {parts}, `goals` and `profile`")


def fill(text: str) -> str:
    """The text with every marked table made anew."""

    def table(match: re.Match) -> str:
        head, name, part = match.groups()
        return f"{head}\n{_made(name, part.split())}\n<!-- /table -->"

    mark = r"(<!-- table:(\S+)((?: \S+)*?) -->).*?<!-- /table -->"
    return re.sub(mark, table, text, flags=re.S)
