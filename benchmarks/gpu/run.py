"""Everything for one window of time on a GPU: the parts asked for, in their order, until the time is up.

Each part is a process of its own with a limit; it writes its JSON as soon as it knows something, so what was
measured is kept whatever comes after. Ends with a short table of goals.

    python -m benchmarks.gpu.run --minutes 8 --output DIR [--bundle B ... --model DIR] [PART ...]
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from luvc import console
from luvc.errors import LuvcError

from . import RESULTS

SPARE = 20  # seconds kept for ending a part and for the table


@dataclass(frozen=True)
class Part:
    """A script and the most seconds it may take."""

    arguments: tuple[str, ...]
    seconds: int
    bundles: bool = False  # takes the bundles and the checkpoint


PARTS = {  # in order of worth
    "kernels": Part(("kernels",), 300),
    "parity": Part(("parity",), 300, True),
    "rtx": Part(("rtx",), 240, True),
    "internvl": Part(("headline", "--model", "InternVL2_5-8B"), 480),
    "qwen": Part(("headline", "--model", "Qwen2.5-VL-7B-Instruct"), 480),
    "sanitizer": Part(("kernels", "--sanitize"), 420),
    "engines-ort": Part(("engines", "--backend", "ort"), 540),
    "engines-rtx": Part(("engines", "--backend", "tensorrt-rtx"), 540),
    "internvl-paper": Part(("headline", "--model", "InternVL2_5-8B", "--paper"), 480),
    "qwen-paper": Part(("headline", "--model", "Qwen2.5-VL-7B-Instruct", "--paper"), 480),
}


def run_part(part: Part, extra: list[str], seconds: float) -> str:
    """Run one part -> how it ended."""
    script, *rest = part.arguments
    command = [sys.executable, "-m", f"benchmarks.gpu.{script}", *rest, *extra]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        _end(process)
        return f"ended after {seconds:.0f} s"
    return "done" if code == 0 else f"exit code {code}"


def _end(process: subprocess.Popen) -> None:
    """End a part and its own children: with a chance to remove temporary files first."""
    for sign, patience in ((signal.SIGINT, 10), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, sign)
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return


def extras(part: Part, bundles: list[Path], model: str | None, output: Path) -> list[str]:
    """Arguments that depend on what is there."""
    found = ["--output", str(output)]
    if part.bundles:
        taken = bundles[-1:] if part.arguments[0] == "rtx" else bundles
        found = [*map(str, taken), *found, *(["--model", model] if model else [])]
    return found


def run(
    parts: list[str], bundles: list[Path], model: str | None, output: Path, minutes: float
) -> list[tuple[str, str, float]]:
    """All parts in order -> (part, how it ended, seconds) of each."""
    end, outcomes = time.monotonic() + minutes * 60 - SPARE, []
    for name in parts:
        part, start = PARTS[name], time.monotonic()
        if part.bundles and not bundles:
            outcomes.append((name, "left out: no --bundle", 0.0))
            continue
        left = end - start
        if left < SPARE:
            outcomes.append((name, "left out: no time", 0.0))
            continue
        console.show(Text(f"== {name}, at most {min(left, part.seconds):.0f} s", style="bold"))
        ended = run_part(part, extras(part, bundles, model, output), min(left, part.seconds))
        outcomes.append((name, ended, time.monotonic() - start))
    return outcomes


def show(outcomes: list[tuple[str, str, float]], output: Path) -> None:
    """How the parts ended, and every goal that a result in the folder was held to."""
    from . import goals
    from .results import goal_table, read

    ends = Table("part", "ended", "s")
    for name, ended, seconds in outcomes:
        ends.add_row(name, ended, f"{seconds:.0f}")
    table = Table("goal", "", "measured", "where")
    for name, _, verdict in goal_table(goals.verdicts(read(output))):
        if verdict is not None:
            mark = "reached" if verdict.reached else "MISSED"
            table.add_row(name, mark, verdict.found, verdict.where)
    console.show(ends, *([table] if table.row_count else []))


def main(
    parts: Annotated[
        list[str] | None, typer.Argument(help=f"Of {', '.join(PARTS)}; default all, in this order.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="Time for all of it.")] = 8,
    bundle: Annotated[
        list[Path] | None,
        typer.Option(help="Bundle for parity; rtx takes the last one. Repeat."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Checkpoint of the bundles.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the JSON files.")] = RESULTS,
) -> None:
    """Run parts within a window of time."""
    chosen = parts or list(PARTS)
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        raise LuvcError(f"no part is called {unknown[0]!r}: choose of {', '.join(PARTS)}")
    output.mkdir(parents=True, exist_ok=True)
    show(run(chosen, bundle or [], model, output, minutes), output)


if __name__ == "__main__":
    console.run_command(main)
