"""What all commands share on the terminal: errors without a trace, steps with their time."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console, RenderableType
from rich.table import Table

from . import __version__
from .errors import LuvcError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def show(*parts: RenderableType) -> None:
    """Print tables as wide as the terminal, everything else without breaking its lines."""
    for part in parts:
        out.print(part, soft_wrap=not isinstance(part, Table))


def run_command(function: Callable[..., None]) -> None:
    """Run a function as a command line; a LuvcError is printed without a trace."""
    if "--version" in sys.argv[1:]:
        out.print(f"luvc-export {__version__}")
        return
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(function)
    try:
        app()
    except LuvcError as e:
        err.print("error:", style="bold red", end=" ")
        err.print(str(e), markup=False)
        sys.exit(e.exit_code)


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
