"""What stands for merged tokens in place of their plain mean: exact match of each variant.

python -m benchmarks.accuracy.variants tools/pocket/model --name pocket

OIM of the most similar neighbours shortens the tower, whose exit gives the grid back; the SPU's defaults
shorten the language model. Every variant answers the same questions as the plain mean, in one run. A run that
was stopped goes on with the same command.
"""

import datetime
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated

import typer

from luvc.tools.journal import Journal

from ...files import write_json
from .. import setup
from ..map import measured, tower
from ..results import RESULTS, told
from ..study import Study
from .merging import MEAN, VARIANTS, VariantRunner
from .results import FILES

TOWERS = (1.4, 1.6)
"""Ratios of the tower's FLOPs that are asked for; grids are whole, so that others come of them."""
PREFILLS = (1.0, 2.0)
"""Ratios of the visual tokens, in the mean over the language model's layers."""


def rows(
    study: Study,
    towers: Sequence[float],
    prefills: Sequence[float],
    once: Callable[[str, Callable[[], dict]], dict],
) -> Iterator[dict]:
    """The whole tower, then each shortened one under every variant.

    Args:
        study: its runner is another one's while this runs.
        towers: ratios.
        prefills: ratios.
        once: gives the result of a name, made only if it is not known.
    """
    product = study.runner
    for asked in (1.0, *towers):
        for variant in VARIANTS if asked > 1 else (MEAN,):
            study.forget()  # towers run under another variant
            study.runner = VariantRunner(product, variant)
            for ratio in prefills:
                name = f"{variant.name}: {asked:g} and {ratio:g}"
                found = once(name, partial(measured, study, tower(asked), ratio))
                yield {"variant": variant.name} | found
    study.forget()
    study.runner = product


def run(
    model: setup.Model,
    name: Annotated[str, typer.Option(help="Of the model, in the file's name and on the page.")],
    split: Annotated[str, typer.Option(help="validation, or test.")] = "validation",
    limit: Annotated[int, typer.Option(help="Questions of the split.")] = 500,
    towers: Annotated[
        list[float] | None, typer.Option("--tower", help="Repeat; default 1.4 and 1.6.")
    ] = None,
    prefills: Annotated[
        list[float] | None, typer.Option("--prefill", help="Repeat; default 1 and 2.")
    ] = None,
    device: setup.Device = "auto",
    batch: setup.Batch = None,
    workers: setup.Workers = 0,
    image_size: setup.ImageSize = None,
    output: setup.Output = RESULTS,
) -> None:
    """Measure every variant; `python -m benchmarks.accuracy.report` then tells what it gains."""
    echo = setup.stopwatch()
    study, head = setup.load(model, split, limit, device, batch, workers, image_size)
    asked = tuple(towers or TOWERS), tuple(prefills or PREFILLS)
    head |= {"name": name, "towers": asked[0], "prefills": asked[1]}
    path = output / FILES.replace("*", name)
    journal = Journal(path.with_suffix(".partial.jsonl"), head, anew=True)
    found = []
    for row in rows(study, *asked, journal.once):
        found.append(row)
        echo(f"{row['variant']}, {row['method']} and {row['ratio']:g}x: {told(row, limit)}")
    head = {"date": datetime.date.today().isoformat()} | head
    write_json(path, head | {"rows": found})
    journal.close()
    echo(f"wrote {path}")


if __name__ == "__main__":
    typer.run(run)
