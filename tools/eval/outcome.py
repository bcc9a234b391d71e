"""What an evaluation found, as JSON, table and plot, and how two of them agree."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt
from rich.table import Table
from rich.text import Text

from ...errors import LuvcError, printable
from ...files import whole
from ...places import check_file
from ...strict_json import Words, read_as
from .intervals import Share, bootstrap_mean, wilson

INK = "#1e293b"
BLUE = "#2563eb"
GREY = "#94a3b8"
OVERALL = "overall"


@dataclass(frozen=True)
class Verdict:
    """One question with what was answered."""

    id: str
    task: str
    question: str
    answers: tuple[str, ...]
    prediction: str
    right: bool
    visual_tokens: int


@dataclass(frozen=True)
class Agreement:
    """Two evaluations of the same questions.

    Attributes:
        questions: that both asked.
        same: of them with equal texts, Wilson's interval.
        gain: accuracy of the first minus the second, paired bootstrap.
        differing: (question, first text, second text).
    """

    questions: int
    same: Share
    gain: Share
    differing: tuple[tuple[str, str, str], ...]


def summary(verdicts: Sequence[Verdict]) -> dict[str, dict[str, Any]]:
    """Per task and overall: questions, right, accuracy with Wilson's 95 % interval."""
    counts, right = Counter(v.task for v in verdicts), Counter(v.task for v in verdicts if v.right)
    counts[OVERALL], right[OVERALL] = len(verdicts), sum(v.right for v in verdicts)
    found = {}
    for task in counts:
        share = wilson(right[task], counts[task])
        found[task] = {
            "questions": counts[task],
            "right": right[task],
            "accuracy": share.value,
            "low": share.low,
            "high": share.high,
        }
    return found


def to_json(head: dict[str, Any], verdicts: Sequence[Verdict], skipped: Counter[str]) -> dict:
    """The whole outcome."""
    return head | {
        "interval": "Wilson, 95 %",
        "skipped": dict(skipped),
        "tasks": summary(verdicts),
        "answers": [asdict(v) for v in verdicts],
    }


class _Strict(BaseModel):
    """Types as they stand in the file."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Task(_Strict):
    questions: NonNegativeInt
    right: NonNegativeInt
    accuracy: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat


class _Answer(_Strict):
    id: Words
    question: Words
    prediction: Words
    right: bool


class _Outcome(_Strict):
    ratio: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    data: Words
    answered_by: Words
    tasks: dict[Words, _Task]
    answers: list[_Answer]


def read(path: Path) -> dict:
    """A file that luvc-eval wrote.

    Raises:
        LuvcError: unreadable or something else.
    """
    return read_as(_Outcome, path, "luvc-eval --output").model_dump()


def compare(ours: dict, theirs: dict) -> Agreement:
    """How often two outcomes give the same text.

    Raises:
        LuvcError: they have no question in common.
    """
    other = {(a["id"], a["question"]): a for a in theirs["answers"]}
    both = [
        (a, other[a["id"], a["question"]])
        for a in ours["answers"]
        if (a["id"], a["question"]) in other
    ]
    if not both:
        raise LuvcError("the two evaluations have no question in common; give both the same data")
    differing = [
        (a["question"], a["prediction"], b["prediction"])
        for a, b in both
        if a["prediction"] != b["prediction"]
    ]
    gains = np.array([float(a["right"]) - float(b["right"]) for a, b in both])
    same = wilson(len(both) - len(differing), len(both))
    return Agreement(len(both), same, bootstrap_mean(gains), tuple(differing))


def table(data: dict, other: dict | None = None) -> Table:
    """Accuracy per task, beside another outcome's."""
    found = Table(
        title=_plain(f"{data['data']}: {data['answered_by']}"),
        title_justify="left",
        title_style="bold",
    )
    found.add_column("task")
    names = ["questions", "right", "accuracy, %", "95 % interval"]
    for name in [*names, *(["compared with, %"] if other else [])]:
        found.add_column(name, justify="right")
    for task, row in data["tasks"].items():
        style = "bold" if task == OVERALL else None
        cells = [
            _plain(task),
            str(row["questions"]),
            str(row["right"]),
            f"{100 * row['accuracy']:.1f}",
            f"{100 * row['low']:.1f} - {100 * row['high']:.1f}",
        ]
        if other:
            theirs = other["tasks"].get(task)
            cells.append(f"{100 * theirs['accuracy']:.1f}" if theirs else "")
        if task == OVERALL:
            found.add_section()
        found.add_row(*cells, style=style)
    return found


def _plain(text: str) -> Text:
    """Words of a file, which are no markup and no orders to a terminal."""
    return Text(printable(text, 200))


def check_plot(path: Path | None) -> None:
    """Refuse a picture that `plot` cannot draw or write, before anything is asked.

    Raises:
        LuvcError: matplotlib is not installed or knows no such format; or see `check_file`.
    """
    if path is None:
        return
    check_file(path, "--plot")
    try:
        import matplotlib.backend_bases
    except ImportError as e:
        raise LuvcError("--plot needs matplotlib: pip install 'luvc-export[eval]'") from e
    known = matplotlib.backend_bases.FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise LuvcError(
            f"--plot {path} does not end in a format of pictures; give one of {', '.join(sorted(known))}"
        )


def plot(data: dict, path: Path, other: dict | None = None) -> None:
    """Accuracy per task as bars with their intervals.

    Raises:
        LuvcError: see `check_plot`.
    """
    check_plot(path)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tasks = list(data["tasks"])[::-1]
    figure, axes = pyplot.subplots(figsize=(7, 0.8 + 0.42 * len(tasks)), layout="constrained")
    places, high = np.arange(len(tasks), dtype=float), 0.36 if other else 0.6
    series = [(data, BLUE, data["answered_by"])]
    series += [(other, GREY, other["answered_by"])] if other else []
    for number, (found, colour, label) in enumerate(series):
        rows = [found["tasks"].get(t, {"accuracy": 0, "low": 0, "high": 0}) for t in tasks]
        value, low, top = (
            100 * np.array([r[k] for r in rows]) for k in ("accuracy", "low", "high")
        )
        where = places + (0.5 * high * (1 - 2 * number) if other else 0)
        axes.barh(where, value, high, color=colour, label=label)
        lines = {"color": INK, "elinewidth": 1, "capsize": 2}
        axes.errorbar(value, where, xerr=[value - low, top - value], fmt="none", **lines)
    axes.set_yticks(places, tasks, color=INK)
    axes.set_xlim(0, 100)
    axes.set_xlabel("right answers, %, with 95 % intervals", color=INK)
    axes.set_title(data["data"], loc="left", color=INK, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    if other:
        axes.legend(
            frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, -0.5 / len(tasks))
        )
    with whole(path) as draft:
        figure.savefig(draft, format=path.suffix[1:], facecolor="white", dpi=150)
    pyplot.close(figure)
