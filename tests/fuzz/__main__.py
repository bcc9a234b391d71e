"""`python -m tests.fuzz`: thousands of spoilt inputs over all surfaces; `make fuzz` runs it.

It resumes where it was stopped, and writes every input that failed below its folder: move those into
tests/fuzz/found, where `make test` tries them for good, and mend what they show.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from luvc.files import whole

from .material import Material
from .surfaces import COSTLY, USUAL, load
from .watch import Bounds, Watched

ROOT = Path(__file__).parents[2]


def shares(weights: dict[str, int], inputs: int) -> dict[str, int]:
    """How many of the inputs each surface gets, by its weight."""
    total = sum(weights.values())
    counts = {name: inputs * weight // total for name, weight in weights.items()}
    counts[next(iter(counts))] += inputs - sum(counts.values())
    return counts


def _weights(names: list[str]) -> dict[str, int]:
    makers = load()
    if unknown := set(names) - makers.keys():
        raise typer.BadParameter(f"no surface {', '.join(unknown)}; there are {', '.join(makers)}")
    return {name: COSTLY.get(name, USUAL) for name in names or makers}


def fuzz(
    inputs: Annotated[int, typer.Option(help="Over all surfaces.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Other seeds try other inputs.")] = 0,
    surface: Annotated[list[str] | None, typer.Option(help="Only this one; repeat.")] = None,
    folder: Annotated[Path, typer.Option(help="Corpus, findings and how far it came.")] = ROOT
    / ".fuzz",
    seconds: Annotated[float, typer.Option(help="Bound of one input.")] = Bounds.seconds,
    mib: Annotated[int, typer.Option(help="Memory bound of one input.")] = Bounds.mib,
    guided: Annotated[bool, typer.Option(help="By coverage, where atheris is installed.")] = True,
) -> None:
    """Try spoilt inputs on every surface; exit code 1 where one failed."""
    folder.mkdir(parents=True, exist_ok=True)
    Material.make(folder / "material")
    counts = shares(_weights(surface or []), inputs)
    how = "guided" if guided and find_spec("atheris") else "random"
    state = folder / f"seed-{seed}"
    state.mkdir(exist_ok=True)
    if not (state / "material").exists():
        (state / "material").symlink_to(folder.resolve() / "material")
    journal = state / "journal.json"
    done: dict[str, int] = json.loads(journal.read_text()) if journal.exists() else {}
    with Progress() as progress:
        for name, most in counts.items():
            task = progress.add_task(f"{name} ({how})", total=most, completed=done.get(name, 0))

            def told(tried: int, name: str = name, task=task) -> None:
                if tried > done.get(name, 0):
                    done[name] = tried
                    with whole(journal) as draft:
                        draft.write_text(json.dumps(done))
                    progress.update(task, completed=tried)

            Watched(name, state, seed, most, how, Bounds(seconds, mib)).run(done.get(name, 0), told)
    _report(state / "found", sum(done.values()))


def _report(found: Path, tried: int) -> None:
    files = sorted(p for p in found.glob("*/*") if p.suffix != ".txt")
    for file in files:
        first, *_, last = file.with_suffix(".txt").read_text().strip().splitlines() * 2
        typer.echo(f"{file}: {last if 'Traceback' in first else first}"[:300])
    typer.echo(f"{tried} inputs tried, {len(files)} kept that failed")
    if files:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(fuzz)
