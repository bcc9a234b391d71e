"""Every method on the test split, and the spectrum's slopes.

python -m benchmarks.accuracy tools/pocket/model

float32 throughout, so that a GPU and a CPU agree. A run that was stopped goes on with the same command.
`python -m benchmarks.accuracy.choose` chooses the defaults before, on the validation split.
"""

import datetime
from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer

from luvc.exporter.planning.defaults import DEFAULTS

from ..files import write_json
from . import setup, spectrum
from .journal import Journal
from .methods import METHODS, flat
from .results import RESULTS
from .study import RATIOS, rows


def run(
    model: setup.Model,
    limit: Annotated[int, typer.Option(help="Questions of the test split.")] = 2000,
    ratio: Annotated[list[float] | None, typer.Option(help="Repeat; default all.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Repeat; default all.")] = None,
    device: setup.Device = "auto",
    batch: setup.Batch = None,
    workers: setup.Workers = 0,
    image_size: setup.ImageSize = None,
    output: setup.Output = RESULTS,
) -> None:
    """Measure everything; `python -m benchmarks.accuracy.report` then writes the page."""
    echo = setup.stopwatch()
    study, head = setup.load(model, "test", limit, device, batch, workers, image_size)
    echo(f"{limit} questions are drawn")
    ratios, methods = ratio or list(RATIOS), [METHODS[name] for name in method or METHODS]
    asked = {"ratios": ratios, "methods": [m.name for m in methods], "defaults": flat(DEFAULTS)}
    journal = Journal(output / "accuracy.partial.jsonl", head | asked)
    if journal.known:
        echo(f"goes on after {len(journal.known)} results")
    slopes = journal.once("spectrum", partial(spectrum.measure, study))
    found = [tell(row, limit, echo) for row in rows(study, methods, ratios, journal.once)]
    head = {"date": datetime.date.today().isoformat()} | head
    write_json(output / "accuracy_test.json", head | {"rows": found})
    del head["tasks"]
    write_json(output / "spectrum.json", head | slopes)
    journal.close()
    echo(f"wrote {output}")


def tell(row: dict, count: int, echo: Callable[[str], None]) -> dict:
    """The row, told as it comes."""
    bits = row.get("right")
    share = f"{int(bits, 16).bit_count() / count:.2%}" if bits else row["why"]
    echo(f"{row['ratio']:g}x {row['method']}: {share}")
    return row


if __name__ == "__main__":
    typer.run(run)
