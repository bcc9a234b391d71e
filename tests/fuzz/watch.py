"""Watches a child that tries inputs: kills it over its bounds, and keeps what it died of."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from .child import HEAD
from .found import Finding

START = 300.0
"""Seconds until the first input: imports, and loading what is spoilt."""
LOOK = 0.1
"""Seconds between two looks."""
PATIENCE = 4


@dataclass(frozen=True)
class Bounds:
    """What one input may take.

    Attributes:
        seconds: of the processor's time, and PATIENCE times as many by the clock, so that a busy machine
            looks like no fault.
        mib: of memory beside what the process held before its first input.
    """

    seconds: float = 30.0
    mib: int = 2048


@dataclass
class Watched:
    """A run over one surface.

    Attributes:
        surface: its name.
        state: see `child.Trial`.
        seed: of the inputs.
        most: number of inputs.
        how: "guided" or "random".
        bounds: of one input.
    """

    surface: str
    state: Path
    seed: int
    most: int
    how: str
    bounds: Bounds

    def run(self, first: int, told: Callable[[int], None]) -> None:
        """Try inputs from number `first`; a process that died is followed by another.

        Args:
            first: 0, or where an earlier run was stopped.
            told: called with the number of inputs that were tried, often.
        """
        while first < self.most:
            tried = self._one_process(first, told)
            if tried <= first:
                raise RuntimeError(f"{self.surface}: the process that tries inputs did not start")
            first = tried

    def _one_process(self, first: int, told: Callable[[int], None]) -> int:
        self._file.unlink(missing_ok=True)
        with (self.state / f"{self.surface}.log").open("ab") as log:
            process = subprocess.Popen(
                self._command(first), stdout=log, stderr=log, cwd=Path(__file__).parents[2]
            )
        try:
            kind = self._watch(process, told)
        finally:
            process.kill()
            process.wait()
        tried, data = self._current()
        told(tried)
        if kind and (data or kind == "crash"):
            text = f"{kind}: {self.bounds}, exit code {process.returncode}"
            Finding(self.surface, kind, data, text).keep(self.state / "found")
        return tried

    def _command(self, first: int) -> list[str]:
        arguments = (self.surface, self.state, self.seed, first, self.most, self.how)
        return [sys.executable, "-m", f"{__package__}.child", *map(str, arguments)]

    def _watch(self, process: subprocess.Popen, told: Callable[[int], None]) -> str:
        """Until the process ends -> what it died of, or nothing."""
        seen, held = -1, None
        since = time.monotonic(), 0.0
        while process.poll() is None:
            time.sleep(LOOK)
            tried, data = self._current()
            told(max(tried, 0))
            used, busy = _used(process)
            now = time.monotonic(), busy
            if tried != seen or (not data and tried > 0):
                seen, since = tried, now
            held = held or (used if tried > 0 else None)
            if held and used - held > self.bounds.mib * 2**20:
                return "memory"
            if _over(since, now, self.bounds.seconds if tried > 0 else START):
                return "hang"
        return "" if process.returncode == 0 else "crash"

    @property
    def _file(self) -> Path:
        return self.state / f"{self.surface}.current"

    def _current(self) -> tuple[int, bytes]:
        """(number of the input that is tried, its bytes); -1 before the first."""
        try:
            content = self._file.read_bytes()
        except FileNotFoundError:
            return -1, b""
        return int.from_bytes(content[:HEAD], "little"), content[HEAD:]


def _over(since: tuple[float, float], now: tuple[float, float], bound: float) -> bool:
    """Whether an input took too long, by the clock or by the processor, both as (clock, processor)."""
    return now[0] - since[0] > PATIENCE * bound or now[1] - since[1] > bound


def _used(process: subprocess.Popen) -> tuple[int, float]:
    """(bytes that the process holds, seconds that it and its children computed)."""
    try:
        watched = psutil.Process(process.pid)
        times = [watched.cpu_times()]
        times += [child.cpu_times() for child in watched.children(recursive=True)]
        return watched.memory_info().rss, sum(t.user + t.system for t in times)
    except psutil.NoSuchProcess:
        return 0, 0.0
