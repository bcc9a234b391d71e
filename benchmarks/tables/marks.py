"""Marked places of pages, `<!-- table:NAME -->` or `<!-- table:NAME batch 1 -->`.

NAME is a file of benchmarks/results, or pocket or pocket-hd for what the shipped models answer. Peers' files
have parts, `<!-- table:NAME weights int8 -->`, `<!-- table:NAME goals -->` and `<!-- table:NAME profile -->`.
"""

import json
import re
from pathlib import Path

from ..peers.goals import goals, profile
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


def _made(name: str, part: str | None, which: str | None) -> str:
    """The text of a mark."""
    file = SHIPPED.get(name, RESULTS / f"{name}.json")
    data = json.loads(file.read_text())
    match part:
        case "goals":
            return goals(data)
        case "profile":
            return profile(data)
        case "weights" if which:
            return of_weights(data, which)
    return TABLES[name](data) if name in TABLES else bench(data, int(which) if which else None)


def fill(text: str) -> str:
    """The text with every marked table made anew."""

    def table(match: re.Match) -> str:
        head, name, part, which = match.groups()
        return f"{head}\n{_made(name, part, which)}\n<!-- /table -->"

    parts = r"(batch|weights|goals|profile)(?: (\w+))?"
    mark = rf"(<!-- table:([\w-]+)(?: {parts})? -->).*?<!-- /table -->"
    return re.sub(mark, table, text, flags=re.S)
