"""What all commands share on the terminal: errors without a trace, steps with their time."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console, RenderableType
from rich.table import Table

from . import __version__
from .errors import LuvcError
from .places import NO_ROOM, writing

out = Console(highlight=False)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def show(*parts: RenderableType) -> None:
    """Print tables as wide as the terminal, everything else without breaking its lines."""
    for part in parts:
        out.print(part, soft_wrap=not isinstance(part, Table))


def run_command(function: Callable[..., None]) -> None:
    """Run a function as a command line; a LuvcError is printed without a trace.

    SIGTERM ends it as Ctrl-C would, so that nothing half done is left, with exit code 143.
    """
    if "--version" in sys.argv[1:]:
        out.print(f"luvc-export {__version__}")
        return
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(function)
    try:
        with stopped_by(signal.SIGTERM, signal.SIGHUP), writing(Path("the output"), NO_ROOM):
            try:
                app()
            finally:
                _flush()
    except BrokenPipeError:  # who reads it has seen enough
        sys.exit(1)
    except LuvcError as e:
        err.print("error:", style="bold red", end=" ")
        err.print(str(e), markup=False)
        sys.exit(e.exit_code)


def _flush() -> None:
    """Write what is printed now: when the interpreter ends an error would be a trace."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # it would be tried once more
        raise


@contextmanager
def stopped_by(*signals: signal.Signals) -> Iterator[None]:
    """Let signals that would end the process at once raise SystemExit, with 128 + their number.

    A signal that is ignored (by nohup) or handled already stays so.
    """

    def leave(number: int, _: object) -> None:
        for other in changed:  # a second one must not stop the cleaning up
            signal.signal(other, signal.SIG_IGN)
        sys.exit(128 + number)

    mine = threading.current_thread() is threading.main_thread()
    changed = [s for s in signals if mine and signal.getsignal(s) is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in changed:
            if signal.getsignal(number) in (leave, signal.SIG_IGN):
                signal.signal(number, signal.SIG_DFL)


class Steps:
    """Long steps as they happen: a spinner on a terminal, one line with the time when done.

    Args:
        quiet: print nothing (for --json).
    """

    def __init__(self, quiet: bool = False):
        self._quiet = quiet
        self._name = ""
        self._start = 0.0
        self._status = err.status("")

    def __call__(self, name: str) -> None:
        """Start the next step; the one before is done."""
        self._done()
        self._name, self._start = name, time.perf_counter()
        if not self._quiet:
            self._status.update(f"{name} ...")

    def __enter__(self) -> "Steps":
        if not self._quiet:
            self._status.start()
        return self

    def __exit__(self, kind, *_) -> None:
        self._status.stop()
        if kind is None:
            self._done()
        elif self._name and not self._quiet:
            err.print(f"  [red]failed[/red] {self._name}")

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the spinner off the terminal while another progress draws there."""
        self._status.stop()
        try:
            yield
        finally:
            if not self._quiet:
                self._status.start()

    def _done(self) -> None:
        if self._name and not self._quiet:
            err.print(
                f"  [green]done[/green] {self._name} [dim]{time.perf_counter() - self._start:.1f} s"
            )
        self._name = ""
