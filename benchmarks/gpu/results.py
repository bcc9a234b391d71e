"""The results' files and how they are held against the goals; nothing heavy is imported."""

import json
from pathlib import Path
from typing import Any

from . import RESULTS, goals


def read(folder: Path = RESULTS) -> dict[str, Any]:
    """All results of a folder, by their file's name without .json."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def goal_table(verdicts: list[goals.Verdict]) -> list[tuple[str, str, goals.Verdict | None]]:
    """Every goal with one verdict: the first that missed it, or the first of all, or none yet."""
    found: dict[str, goals.Verdict] = {}
    for v in verdicts:
        if v.goal not in found or (found[v.goal].reached and not v.reached):
            found[v.goal] = v
    return [(name, wanted, found.get(name)) for name, wanted in goals.GOALS.items()]
