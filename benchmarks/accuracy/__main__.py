"""Every method on the test split, and the spectrum's slopes.

python -m benchmarks.accuracy tools/pocket/model

float32 throughout, so that a GPU and a CPU agree. A run that was stopped goes on with the same command.
The defaults are chosen before, on the validation split: the solver's by
`python -m benchmarks.accuracy.choose`, the score among some methods by `--split validation` here.
"""

import datetime
import json
from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer

from luvc.exporter.planning.defaults import DEFAULTS
from luvc.tools.journal import Journal

from ..files import read_json, write_json
from . import setup, spectrum
from .methods import METHODS, flat
from .results import RESULTS, told
from .study import CONTROL, RATIOS, rows

SAME = ("checkpoint", "defaults", "image_size", "tasks")
"""What rows of two runs must agree in to stand in one file."""


def run(
    model: setup.Model,
    split: Annotated[str, typer.Option(help="test, or validation to choose by.")] = "test",
    limit: Annotated[int, typer.Option(help="Questions of the split.")] = 2000,
    ratio: Annotated[list[float] | None, typer.Option(help="Repeat; default all.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Repeat; default all.")] = None,
    device: setup.Device = "auto",
    batch: setup.Batch = None,
    workers: setup.Workers = 0,
    image_size: setup.ImageSize = None,
    output: setup.Output = RESULTS,
) -> None:
    """Measure everything, or a part of it beside what the folder holds of the same.

    `python -m benchmarks.accuracy.report` then writes the page.
    """
    echo = setup.stopwatch()
    study, head = setup.load(model, split, limit, device, batch, workers, image_size)
    echo(f"{limit} questions are drawn")
    ratios, methods = ratio or list(RATIOS), [METHODS[name] for name in method or METHODS]
    head = json.loads(json.dumps(head | {"defaults": flat(DEFAULTS)}))  # tuples become lists
    asked = {"ratios": ratios, "methods": [m.name for m in methods]}
    journal = Journal(output / f"accuracy_{split}.partial.jsonl", head | asked, anew=True)
    if journal.known:
        echo(f"goes on after {len(journal.known)} results")
    found = [tell(row, limit, echo) for row in rows(study, methods, ratios, journal.once)]
    path = output / f"accuracy_{split}.json"
    older = read_json(path) or {}
    if "defaults" in older:  # without options that came later: they began as what was before them
        older["defaults"] = head["defaults"] | older["defaults"]
    same = all(older.get(name) == head[name] for name in SAME)
    found = joined(older["rows"] if same else [], found)
    head = {"date": datetime.date.today().isoformat()} | head
    write_json(path, head | {"rows": found})
    if split == "test":
        slopes = journal.once("spectrum", partial(spectrum.measure, study))
        del head["tasks"]
        write_json(output / "spectrum.json", head | slopes)
    journal.close()
    echo(f"wrote {output}")


def joined(older: list[dict], newer: list[dict]) -> list[dict]:
    """The rows of an earlier run, but for those measured anew; by ratio, then in the list's order."""
    rows = {(row["ratio"], row["method"], row["seed"]): row for row in (*older, *newer)}
    order = {name: place for place, name in enumerate((CONTROL.name, *METHODS))}
    known = [key for key in rows if key[1] in order]  # without methods that are gone
    return [rows[key] for key in sorted(known, key=lambda key: (key[0], order[key[1]], key[2]))]


def tell(row: dict, count: int, echo: Callable[[str], None]) -> dict:
    """The row, told as it comes."""
    echo(f"{row['ratio']:g}x {row['method']}: {told(row, count)}")
    return row


if __name__ == "__main__":
    typer.run(run)
