"""Cache rows that conversations share: those in use stand first, without gaps.

A step then runs over exactly the rows in use, in place. New rows are prefilled where they will stay,
behind them; a row that leaves is overwritten by the last one. Letters: B batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from ..backends.base import SharedRunner
from ..bundle.manifest import Layout, Manifest
from ..decoding import Rows

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

    Raises:
        LuvcError: the caches do not fit into memory, or their rows cannot be shared.
    """

    def __init__(self, runner: SharedRunner, manifest: Manifest, layout: Layout, capacity: int):
        self.runner, self.manifest, self.layout = runner, manifest, layout
        self.capacity = capacity
        self.jobs: list[T] = []
        self._caches = runner.new_caches(layout, capacity)
        self._rows: Rows | None = None
        self._check()

    def _check(self) -> None:
        """Whether the runner can begin at every row, before a request finds out."""
        self.runner.window(self._caches, 0, self.capacity)
        if self.capacity > 1:  # rows have one size: what holds for the second holds for all
            self.runner.window(self._caches, 1, 1)

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
        state = {n: np.concatenate([s[n] for s in states]) for n in Rows.PER_ROW}
        self._use([*self.jobs, *jobs], state)

    def leave(self, row: int) -> None:
        """Free a row; the last one takes its place."""
        last = len(self.jobs) - 1
        jobs, state = self.jobs[:last], _state(self.rows)
        if row != last:
            source, target = (self.runner.window(self._caches, r, 1) for r in (last, row))
            self.runner.copy_caches(source, target)
            jobs[row] = self.jobs[last]
            for values in state.values():
                values[row] = values[last]
        self._use(jobs, {n: v[:last] for n, v in state.items()})

    def clear(self) -> None:
        """Free all rows."""
        self._use([], {})

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

    def _use(self, jobs: list[T], state: dict[str, np.ndarray]) -> None:
        """These jobs run in the first rows, which stand where `state` says."""
        rows = None
        if jobs:
            caches = self.runner.window(self._caches, 0, len(jobs))
            rows = Rows(self.runner, self.manifest, self.layout, len(jobs), caches)
            for name, value in state.items():
                setattr(rows, name, value)
        self.jobs, self._rows = jobs, rows  # both, or neither when that failed


class Pools(Generic[T]):
    """The pool of each layout, made when the layout is first used.

    Args:
        runner: whose caches can be shared.
        manifest: of the bundle.
        capacity: rows of each pool.
    """

    def __init__(self, runner: SharedRunner, manifest: Manifest, capacity: int):
        self._runner, self._manifest, self._capacity = runner, manifest, capacity
        self._made: dict[str, Pool[T]] = {}

    def of(self, layout: Layout) -> Pool[T]:
        """The pool of a layout.

        Raises:
            LuvcError: see Pool.
        """
        if layout.name not in self._made:
            self._made[layout.name] = Pool(self._runner, self._manifest, layout, self._capacity)
        return self._made[layout.name]

    def close(self) -> None:
        """Give the caches of all pools back; nothing runs in them any more."""
        self._made.clear()

    def in_use(self) -> list[Pool[T]]:
        """Those in which something runs."""
        return [pool for pool in list(self._made.values()) if pool.jobs]


def _state(rows: Rows) -> dict[str, np.ndarray]:
    return {name: np.array(getattr(rows, name)) for name in Rows.PER_ROW}
