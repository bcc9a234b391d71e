"""What the study found: files, shares with intervals, paired differences.

Intervals are at 95 %: Wilson's for a share, a percentile bootstrap over questions for the mean of
several draws and for the difference of two methods on the same questions.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from luvc.tools.eval.intervals import Share, bootstrap_mean, wilson

from ..files import read_json

RESULTS = Path(__file__).parent.parent / "results"


@dataclass(frozen=True)
class Row:
    """A method at a ratio.

    Attributes:
        fields: method, kind, note, ratio, mean, schedule, as the study wrote them.
        right: bool [seeds, questions].
    """

    fields: dict
    right: np.ndarray

    @property
    def name(self) -> str:
        """The method."""
        return self.fields["method"]

    @property
    def ratio(self) -> float:
        """The ratio."""
        return self.fields["ratio"]


class Results:
    """One split's file.

    Args:
        data: its JSON.
    """

    def __init__(self, data: dict):
        self.data = data
        self.tasks = np.array(data["tasks"])
        bits: dict[tuple, list[np.ndarray]] = {}
        fields: dict[tuple, dict] = {}
        for row in data["rows"]:
            key = row["method"], row["ratio"]
            if "right" in row:
                bits.setdefault(key, []).append(unpack(row["right"], len(self.tasks)))
                fields.setdefault(key, row)
        self.rows = {key: Row(fields[key], np.stack(bits[key])) for key in bits}

    @classmethod
    def read(cls, split: str, folder: Path = RESULTS) -> "Results | None":
        """The file of a split, or None when it was not measured."""
        data = read_json(folder / f"accuracy_{split}.json")
        return cls(data) if data else None

    @property
    def ratios(self) -> list[float]:
        """Those that were measured, without 1."""
        return sorted({ratio for _, ratio in self.rows} - {1.0})

    @property
    def refused(self) -> dict[str, str]:
        """Methods that have no plan at any ratio -> why not at the first."""
        why: dict[str, str] = {}
        for row in self.data["rows"]:
            why.setdefault(row["method"], row.get("why", ""))
        planned = {name for name, _ in self.rows}
        return {name: reason for name, reason in why.items() if name not in planned}

    @property
    def full(self) -> Row:
        """The unmodified model."""
        return self.rows["ratio 1", 1.0]

    def where(self, task: str | None) -> np.ndarray:
        """Which questions count, bool [questions]; None: all."""
        return where(self.tasks, task)

    def share(self, row: Row, task: str | None = None) -> Share:
        """Exact match; of several draws the mean, with a bootstrap over questions."""
        return exact_match(row.right[:, self.where(task)])

    def gain(self, row: Row, other: Row, task: str | None = None) -> Share:
        """Exact match of `row` minus that of `other`, paired by question."""
        mask = self.where(task)
        return bootstrap_mean(row.right[:, mask].mean(0) - other.right[:, mask].mean(0))


def where(tasks: np.ndarray, task: str | None) -> np.ndarray:
    """Which questions are of a task, bool [questions]; None: all."""
    return tasks == task if task else np.ones(len(tasks), bool)


def exact_match(right: np.ndarray) -> Share:
    """The share of bool [draws, questions]; of several draws the mean, with a bootstrap over questions."""
    if len(right) > 1:
        return bootstrap_mean(right.mean(0))
    return wilson(int(right.sum()), right.size)


def told(row: dict, count: int) -> str:
    """The share of `count` questions that a row of a study has right, or why it has none."""
    bits = row.get("right")
    return f"{int(bits, 16).bit_count() / count:.2%}" if bits else row["why"]


def unpack(bits: str, count: int) -> np.ndarray:
    """Bits as the study wrote them -> bool [count]."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8), count=count).astype(bool)
