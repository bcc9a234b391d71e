"""Choose the solver's defaults on the validation split.

Each option of the solver is varied alone; it moves where the best variant gains over the default with
a paired 95 % interval above zero, in the mean over the ratios. The options that move are then measured
together by the study as "chosen". The test split is never looked at here.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np

from luvc.exporter.problem import DEFAULTS, Options

from .methods import METHODS
from .results import Results, Share, bootstrap_mean


@dataclass(frozen=True)
class Verdict:
    """One variant against the default.

    Attributes:
        option: the field of Options that it moves.
        value: what it moves it to.
        ratios: those at which both were measured.
        overall: gain over all questions, mean over the ratios, paired.
        ocr: the same for OCR.
        moved: whether the default should move to it.
    """

    method: str
    option: str
    value: object
    ratios: tuple[float, ...]
    overall: Share
    ocr: Share
    moved: bool = False


def verdicts(results: Results) -> list[Verdict]:
    """All variants that the product offers, best first within each option."""
    found = []
    for name, method in METHODS.items():
        moved = changed(method.options) if method.options else []
        ratios = tuple(r for r in results.ratios if {(name, r), ("luvc", r)} <= results.rows.keys())
        if len(moved) == 1 and ratios:
            option = moved[0]
            gains = (gain(results, name, "luvc", ratios, task) for task in (None, "ocr"))
            found.append(Verdict(name, option, getattr(method.options, option), ratios, *gains))
    found.sort(key=lambda v: (v.option, -v.overall.value))
    best = {v.option: v for v in reversed(found)}
    return [replace(v, moved=best[v.option] is v and v.overall.low > 0) for v in found]


def gain(
    results: Results, name: str, other: str, ratios: Sequence[float], task: str | None
) -> Share:
    """Exact match of a method minus another's, mean over ratios, paired by question."""
    mask = results.where(task)

    def mean(method: str) -> np.ndarray:
        rows = [results.rows[method, ratio].right[:, mask].mean(0) for ratio in ratios]
        return np.mean(rows, 0)

    return bootstrap_mean(mean(name) - mean(other))


def changed(options: Options) -> list[str]:
    """Fields in which options differ from the defaults."""
    return [
        f.name for f in fields(Options) if getattr(options, f.name) != getattr(DEFAULTS, f.name)
    ]


def choose(found: Sequence[Verdict]) -> Options:
    """The defaults with every option that should move."""
    return replace(DEFAULTS, **{v.option: v.value for v in found if v.moved})


def as_json(found: Sequence[Verdict], chosen: Options) -> dict:
    """What benchmarks/results/accuracy_choice.json holds."""
    return {
        "defaults": asdict(DEFAULTS), "chosen": asdict(chosen), "verdicts": [asdict(v) for v in found]
    }  # fmt: skip
