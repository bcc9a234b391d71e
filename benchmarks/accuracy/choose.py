"""Choose the solver's defaults on the validation split.

python -m benchmarks.accuracy.choose tools/pocket/model

Forward selection: starting from LUVC as we read the paper, every other value of every option is
measured alone; the one that gains most, in the mean over the ratios and with a paired 95 % interval
above zero, is taken, and so on until nothing gains. The test split is never looked at here.
"""

import datetime
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Annotated

import numpy as np
import typer

from luvc.engines.bundle.schedule import Schedule
from luvc.errors import LuvcError
from luvc.exporter.planning.defaults import DEFAULTS, PAPER, SolverOptions
from luvc.tools.journal import Journal

from ..files import write_json
from . import setup
from .methods import MOVES, Method, flat, luvc, moved, name_of, value_of
from .results import RESULTS, Share, bootstrap_mean, unpack
from .study import Study, entry

RATIOS = (1.5, 2.0, 3.0)
"""Those that the choice is made at; beyond, many options have no plan."""

Right = dict[float, np.ndarray]
"""Ratio -> which questions are right, bool [questions]; without the ratios that have no plan."""


@dataclass(frozen=True)
class Verdict:
    """One value of one option against what was chosen before its round.

    Attributes:
        option: the field of SolverOptions that it moves.
        value: what it moves it to.
        name: both, as the study calls it.
        overall: gain over all questions, mean over the ratios, paired; None where a ratio has no plan.
        ocr: the same for OCR.
        moved: whether the round took it.
    """

    option: str
    value: object
    name: str
    overall: Share | None
    ocr: Share | None
    moved: bool = False


@dataclass(frozen=True)
class Round:
    """What was tried from some options, best first."""

    start: SolverOptions
    tried: tuple[Verdict, ...]

    @property
    def end(self) -> SolverOptions:
        """The options after the round."""
        end = self.start
        for verdict in self.tried:
            end = moved(end, verdict.option, verdict.value) if verdict.moved else end
        return end


def search(
    measure: Callable[[SolverOptions], Right], tasks: np.ndarray, start: SolverOptions = PAPER
) -> Iterator[Round]:
    """Round after round, the last one without a move.

    Args:
        measure: what options answer; asked again for options it knows.
        tasks: of the questions.
        start: the options before the first round.
    """
    while True:
        base = measure(start)
        moves = [(o, v) for o, values in MOVES.items() for v in values if v != value_of(start, o)]
        found = [_verdict(measure(moved(start, o, v)), base, tasks, o, v) for o, v in moves]
        found.sort(key=lambda v: -v.overall.value if v.overall else np.inf)
        best = found[0]
        better = best.overall is not None and best.overall.low > 0
        yield Round(start, (replace(best, moved=better), *found[1:]))
        if not better:
            return
        start = moved(start, best.option, best.value)


def _verdict(right: Right, base: Right, tasks: np.ndarray, option: str, value: object) -> Verdict:
    name = name_of(option, value)
    if not base.keys() <= right.keys():
        return Verdict(option, value, name, None, None)
    gain = np.mean([right[r].astype(float) - base[r] for r in base], 0)
    return Verdict(option, value, name, bootstrap_mean(gain), bootstrap_mean(gain[tasks == "ocr"]))


def measured(study: Study, journal: Journal) -> Callable[[SolverOptions], Right]:
    """`search`'s measure on a study, noted in a journal; options with equal schedules are one."""
    known: dict[tuple, Right] = {}

    def measure(options: SolverOptions) -> Right:
        method = luvc("options", "", options=options)
        key = tuple(_schedules(study, method, ratio) for ratio in RATIOS)
        if key not in known:
            rows = {
                r: journal.once(
                    f"{tuple(flat(options).items())} at {r:g}", partial(entry, study, method, r, 0)
                )
                for r in RATIOS
            }
            known[key] = {
                r: unpack(row["right"], study.count) for r, row in rows.items() if "right" in row
            }
        return known[key]

    return measure


def _schedules(study: Study, method: Method, ratio: float) -> tuple[Schedule, ...] | None:
    """What a method does at a ratio with every number of pictures; None without a plan."""
    try:
        return tuple(study.schedules(method, ratio).values())
    except LuvcError:
        return None


def as_json(rounds: list[Round], head: dict) -> dict:
    """What benchmarks/results/accuracy_choice.json holds."""
    return head | {
        "ratios": RATIOS,
        "start": flat(rounds[0].start),
        "chosen": flat(rounds[-1].end),
        "rounds": [[asdict(v) for v in r.tried] for r in rounds],
    }


def run(
    model: setup.Model,
    limit: Annotated[int, typer.Option(help="Questions of the validation split.")] = 600,
    device: setup.Device = "auto",
    batch: setup.Batch = None,
    workers: setup.Workers = 0,
    image_size: setup.ImageSize = None,
    output: setup.Output = RESULTS,
) -> None:
    """Choose the solver's defaults; whoever agrees moves them in exporter/planning/defaults.py."""
    echo = setup.stopwatch()
    study, head = setup.load(model, "validation", limit, device, batch, workers, image_size)
    journal = Journal(output / "accuracy_choice.partial.jsonl", head, anew=True)
    rounds = []
    measure = measured(study, journal)
    for found in search(measure, study.tasks):
        rounds.append(found)
        best = found.tried[0]
        gain = f"{best.overall.value:+.2%}" if best.overall else "no plan"
        echo(f"{best.name}: {gain}, moved: {best.moved}")
    head = {"date": datetime.date.today().isoformat()} | head
    write_json(output / "accuracy_choice.json", as_json(rounds, head))
    journal.close()
    same = (
        "as exporter/planning/defaults.py has it"
        if rounds[-1].end == DEFAULTS
        else "not its defaults"
    )
    echo(f"chosen, {same}: {rounds[-1].end}")


if __name__ == "__main__":
    typer.run(run)
