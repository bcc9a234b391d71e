"""Cache rows that conversations share: those in use stand first, without gaps.

A step then runs over exactly the rows in use, in place. New rows are prefilled where they will stay,
behind them; a row that leaves is overwritten by the last one. Letters: B batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from ..backends.base import SharedRunner
from ..decoding import Rows
from ..manifest import Layout, Manifest

T = TypeVar("T")


@dataclass(frozen=True)
class Parked:
    """One row outside of the pool: host copies of its caches, and where it stands in its text."""

    caches: dict[str, np.ndarray]
    state: dict[str, np.ndarray]

    @property
    def bytes(self) -> int:
        """Host memory it takes."""
        return sum(c.nbytes for c in self.caches.values())


class Pool(Generic[T]):
    """Rows of one layout and what runs in them.

    Args:
        runner: whose caches can be shared.
        manifest: of the bundle.
        layout: of all rows.
        capacity: rows, allocated at once.

    Attributes:
        jobs: what runs in rows 0, 1, ...
    """

    def __init__(self, runner: SharedRunner, manifest: Manifest, layout: Layout, capacity: int):
        self.runner, self.manifest, self.layout = runner, manifest, layout
        self.capacity = capacity
        self.jobs: list[T] = []
        self._caches = runner.new_caches(layout, capacity)
        self._rows: Rows | None = None

    @property
    def rows(self) -> Rows:
        """The rows in use; there must be some."""
        assert self._rows is not None
        return self._rows

    def space(self, count: int) -> Any:
        """Caches of `count` rows behind those in use; `join` makes them part of these."""
        return self.runner.window(self._caches, len(self.jobs), count)

    def join(self, rows: Rows, jobs: Sequence[T]) -> None:
        """Rows that were run in `space` are in use from now on."""
        states = [_state(rows)] if self._rows is None else [_state(self._rows), _state(rows)]
        self.jobs.extend(jobs)
        self._use({n: np.concatenate([s[n] for s in states]) for n in Rows.PER_ROW})

    def leave(self, row: int) -> None:
        """Free a row; the last one takes its place."""
        last = len(self.jobs) - 1
        state = _state(self.rows)
        if row != last:
            source, target = (self.runner.window(self._caches, r, 1) for r in (last, row))
            self.runner.copy_caches(source, target)
            self.jobs[row] = self.jobs[last]
            for values in state.values():
                values[row] = values[last]
        self.jobs.pop()
        self._use({n: v[:last] for n, v in state.items()})

    def clear(self) -> None:
        """Free all rows."""
        self.jobs.clear()
        self._rows = None

    def park(self, row: int) -> Parked:
        """A copy of a row, for later."""
        caches = self.runner.read_caches(self.runner.window(self._caches, row, 1))
        return Parked(caches, {n: v[row : row + 1].copy() for n, v in _state(self.rows).items()})

    def unpark(self, parked: Parked) -> Rows:
        """A parked row in `space(1)`, not in use yet."""
        caches = self.space(1)
        self.runner.write_caches(caches, parked.caches)
        rows = Rows(self.runner, self.manifest, self.layout, 1, caches)
        for name, value in parked.state.items():
            setattr(rows, name, value.copy())
        return rows

    def _use(self, state: dict[str, np.ndarray]) -> None:
        count = len(self.jobs)
        self._rows = None
        if count:
            caches = self.runner.window(self._caches, 0, count)
            self._rows = Rows(self.runner, self.manifest, self.layout, count, caches)
            for name, value in state.items():
                setattr(self._rows, name, value)


def _state(rows: Rows) -> dict[str, np.ndarray]:
    return {name: np.array(getattr(rows, name)) for name in Rows.PER_ROW}
