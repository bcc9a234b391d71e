"""The maps of tower and language model: files, and what each point loses."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from luvc.tools.eval.intervals import Share, bootstrap_mean

from ..files import read_json
from .results import RESULTS, exact_match, unpack, where

MATCHED = "matched"


@dataclass(frozen=True)
class Point:
    """A tower under a prefill ratio.

    Attributes:
        how: "matched", "fixed", or "one step at 0.125".
        tower, prefill: ratios that it has.
        asked: for the prefill.
        lengths: grids of the tower, from the first to the last.
        right: bool [questions].
    """

    how: str
    tower: float
    prefill: float
    asked: float
    lengths: tuple[str, ...]
    right: np.ndarray


class Map:
    """One model's file.

    Args:
        data: its JSON.
    """

    def __init__(self, data: dict):
        self.data, self.name = data, data["name"]
        self.tasks = np.array(data["tasks"])
        self.points = [self._point(row) for row in data["rows"] if "right" in row]

    def _point(self, row: dict) -> Point:
        how = row["method"] if row["method"].startswith("one") else row["method"].split()[0]
        right = unpack(row["right"], len(self.tasks))
        return Point(how, row["tower"], row["prefill"], row["ratio"], tuple(row["lengths"]), right)

    @classmethod
    def read_all(cls, folder: Path = RESULTS) -> "list[Map]":
        """Those that were measured, in the order of their names."""
        return [cls(read_json(path)) for path in sorted(folder.glob("accuracy_map_*.json"))]

    @cached_property
    def whole(self) -> Point:
        """The unmodified model."""
        return next(p for p in self.points if p.tower == 1 and p.asked == 1)

    @property
    def towers(self) -> list[float]:
        """Ratios of the matched towers."""
        return sorted({p.tower for p in self.points if p.how == MATCHED})

    @property
    def prefills(self) -> list[float]:
        """Ratios that the language model was asked for."""
        return sorted({p.asked for p in self.points})

    def at(self, tower: float, prefill: float) -> Point | None:
        """The matched point of a tower and an asked prefill."""
        found = (p for p in self.points if p.how == MATCHED)
        return next((p for p in found if (p.tower, p.asked) == (tower, prefill)), None)

    @property
    def others(self) -> list[Point]:
        """Fixed groups, and one step at several depths."""
        return [p for p in self.points if p.how != MATCHED]

    def share(self, point: Point, task: str | None = None) -> Share:
        """Exact match."""
        return exact_match(point.right[None, where(self.tasks, task)])

    def lost(self, point: Point, task: str | None = None) -> Share:
        """Points that it gains (+) or loses (-) against the unmodified model, paired by question."""
        mask = where(self.tasks, task)
        gains = point.right[mask].astype(float) - self.whole.right[mask]
        return bootstrap_mean(gains)
