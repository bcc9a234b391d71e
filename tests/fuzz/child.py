"""A child process that tries inputs of one surface, so that what crashes or hangs is only this process.

It writes every input to the file `current` before it is tried, with its number: the watcher (watch.py)
sees from it how long one takes, and finds the input of a process that died.
"""

import importlib
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from luvc.errors import LuvcError

from .found import Finding, kind_of
from .material import Material

BUFFER = 4096
"""Bytes from which hypothesis draws an input."""
HEAD = 8
"""Bytes before the input in `current`: its number."""


class Trial:
    """Tries inputs and keeps those that fail.

    Args:
        surface: its name.
        state: the folder with `current` and `found`.
        first: number of the first input.
        most: number that ends the process.
    """

    def __init__(self, surface: str, state: Path, first: int, most: int):
        from .surfaces import load

        self._name = surface
        self._state = state
        self._number = first
        self._most = most
        self._scratch = Path(tempfile.mkdtemp(prefix="luvc-fuzz-"))
        self._surface = load()[surface](Material(state / "material", self._scratch))

    def one(self, data: bytes) -> None:
        """Try an input."""
        if self._number >= self._most:
            self.end()
        self._number += 1
        self._current(data)
        try:
            self._surface.check(data)
        except LuvcError:
            pass
        except Exception as e:  # what this looks for
            text = "".join(traceback.format_exception(e))
            Finding(self._name, kind_of(e), data, text).keep(self._state / "found")
        self._current(b"")

    def function(self) -> Callable[[bytes], object]:
        """`one`, on an input that hypothesis draws from random bytes."""
        return self._surface.drawing(self.one)

    def end(self) -> None:
        """Leave at once: a fuzzer's exit handlers have nothing to add."""
        self._current(b"")
        shutil.rmtree(self._scratch, ignore_errors=True)
        os._exit(0)

    def _current(self, data: bytes) -> None:
        draft = self._state / f"{self._name}.draft"
        draft.write_bytes(self._number.to_bytes(HEAD, "little") + data)
        draft.replace(self._state / f"{self._name}.current")


def at_random(trial: Trial, seed: int, first: int, most: int) -> None:
    """Inputs from a seed alone: the same number is the same input, always."""
    one = trial.function()
    for number in range(first, most * 2):  # some buffers give no input
        one(random.Random(f"{seed} {number}").randbytes(BUFFER))


def guided(trial: Trial, seed: int, first: int, corpus: Path) -> None:
    """Inputs guided by which lines of luvc they reach; the corpus is what reached new ones."""
    atheris = importlib.import_module("atheris")  # an extra of its own, for Linux alone
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        for number in range(20):
            data = random.Random(f"{seed} {number}").randbytes(BUFFER)
            (corpus / f"seed-{number}").write_bytes(data)
    flags = [
        f"-seed={(seed + 1) * 100_000 + first + 1}",
        f"-max_len={2 * BUFFER}",
        "-len_control=0",
        "-timeout=1000000",  # the watcher's work
        f"-artifact_prefix={corpus.parent}/",
        "-rss_limit_mb=0",
        "-verbosity=0",
        "-handle_segv=0",
    ]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], trial.function())
    atheris.Fuzz()


def main() -> None:
    """`python -m tests.fuzz.child SURFACE STATE SEED FIRST MOST HOW`."""
    surface, state, seed, first, most, how = sys.argv[1:]
    if how == "guided":
        atheris = importlib.import_module("atheris")
        with atheris.instrument_imports(include=["luvc"]):
            trial = Trial(surface, Path(state), int(first), int(most))
        guided(trial, int(seed), int(first), Path(state) / "corpus" / surface)
    else:
        trial = Trial(surface, Path(state), int(first), int(most))
        at_random(trial, int(seed), int(first), int(most))
    trial.end()


if __name__ == "__main__":
    main()
