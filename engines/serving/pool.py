"""Cache rows that conversations share: those in use stand first, without gaps.

A step then runs over exactly the rows in use, in place. New rows are prefilled where they will stay,
behind them; a row that leaves is overwritten by the last one. Letters: B batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from ..backends.base import SharedRunner
from ..bundle.layout import Layout
from ..bundle.manifest import Manifest
from ..bundle.tensors import STATES
from ..decoding import Rows
from ..prompt.positions import Reached

T = TypeVar("T")


@dataclass(frozen=True)
class Parked:
    """One row outside of the pool: host copies of the slots in use of its caches, how far it has come."""

    caches: dict[str, np.ndarray]
    reached: Reached
    layout: Layout

    @property
    def bytes(self) -> int:
        """Host memory it takes."""
        return sum(c.nbytes for c in self.caches.values())


class Pool(Generic[T]):
    """Rows of layouts that share a step graph, or of one alone, and what runs in them.

    Args:
        runner: whose caches can be shared.
        manifest: of the bundle.
        layout: of the first rows.
        capacity: rows, allocated at once.

    Attributes:
        jobs: what runs in rows 0, 1, ...

    Raises:
        LuvcError: the caches do not fit into memory, or their rows cannot be shared.
    """

    def __init__(self, runner: SharedRunner, manifest: Manifest, layout: Layout, capacity: int):
        self.runner = runner
        self.manifest = manifest
        self.layout = layout
        self.capacity = capacity
        self.jobs: list[T] = []
        self._caches = self._new_caches()
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

    def reserve(self, slots: Sequence[int]) -> None:
        """Have at least so many slots in each layer of all rows, before `space` or a step."""
        grown = self.runner.grown(self.layout, self._caches, slots)
        if grown is not self._caches:
            self._caches = grown
            if self._rows is not None:
                self._rows.caches = self.runner.window(grown, 0, len(self.jobs))

    def step(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        """New tokens of the rows in use: see `Rows.step`."""
        self.reserve(self.rows.slots(max(map(len, tokens))))
        return self.rows.step(tokens)

    def space(self, count: int, skip: int = 0) -> Any:
        """Caches of `count` rows behind those in use and `skip` more; `join` makes them part of these."""
        return self.runner.window(self._caches, len(self.jobs) + skip, count)

    def join(self, rows: Rows, jobs: Sequence[T]) -> None:
        """Rows that were run in `space` are in use from now on."""
        if self._rows is not None:
            caches = self.runner.window(self._caches, 0, len(self.jobs) + len(jobs))
            rows = self._rows.join(rows, caches)
        self.jobs, self._rows = [*self.jobs, *jobs], rows  # both, or neither when that failed

    def leave(self, row: int) -> None:
        """Free a row; the last one takes its place."""
        last = len(self.jobs) - 1
        if last == 0:
            self.clear()
            return
        stay = list(range(last))
        if row != last:
            source, target = (self.runner.window(self._caches, r, 1) for r in (last, row))
            self.runner.copy_caches(source, target)
            stay[row] = last
        rows = self.rows.take(stay, self.runner.window(self._caches, 0, last))
        self.jobs, self._rows = [self.jobs[r] for r in stay], rows

    def clear(self) -> None:
        """Free all rows; caches that grew for one of them give their memory back."""
        self.jobs, self._rows = [], None
        if self.runner.mixes:
            self._caches = None  # before new ones take memory
            self._caches = self._new_caches()

    def _new_caches(self) -> Any:
        layers = self.manifest.language.layers
        return self.runner.new_caches(self.layout, self.capacity, [1] * layers)

    def park(self, row: int) -> Parked:
        """A copy of the slots in use of a row, for later."""
        return self._parked(self.rows.take([row], self.runner.window(self._caches, row, 1)))

    def copy(self, place: int, rows: Rows) -> Parked:
        """A copy of the slots in use of a row of `space`, which is not in use yet.

        Args:
            place: of the row behind those in use.
            rows: what was run in `space`.
        """
        return self._parked(rows.take([place], self.space(1, place)))

    def _parked(self, row: Rows) -> Parked:
        found, used = self.runner.read_caches(row.caches), row.slots(0)

        def cut(name: str, cache: np.ndarray) -> np.ndarray:
            kind, layer = name.split("_")[1:]
            return cache if kind in STATES else cache[:, :, : used[int(layer)]].copy()

        kept = {name: cut(name, cache) for name, cache in found.items()}
        return Parked(kept, row.reached, row.layout)

    def unpark(self, parked: Parked, more: int) -> Rows:
        """A parked row in `space(1)`, not in use yet, with room for `more` tokens."""
        rows = Rows(self.runner, self.manifest, parked.layout, 1, None, parked.reached)
        self.reserve(rows.slots(more))
        rows.caches = self.space(1)
        self.runner.write_caches(rows.caches, parked.caches)
        return rows


class Pools(Generic[T]):
    """The pool of each layout, or of all that may lie in one batch, made when it is first used.

    Args:
        runner: whose caches can be shared.
        manifest: of the bundle.
        capacity: rows of each pool.
    """

    def __init__(self, runner: SharedRunner, manifest: Manifest, capacity: int):
        self._runner = runner
        self._manifest = manifest
        self._capacity = capacity
        self._made: dict[str, Pool[T]] = {}

    def of(self, layout: Layout) -> Pool[T]:
        """The pool of a layout.

        Raises:
            LuvcError: see Pool.
        """
        key = "" if self._runner.mixes else layout.name
        if key not in self._made:
            self._made[key] = Pool(self._runner, self._manifest, layout, self._capacity)
        return self._made[key]

    def close(self) -> None:
        """Give the caches of all pools back; nothing runs in them any more."""
        self._made.clear()

    def in_use(self) -> list[Pool[T]]:
        """Those in which something runs."""
        return [pool for pool in list(self._made.values()) if pool.jobs]
