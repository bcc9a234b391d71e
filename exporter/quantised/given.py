"""What products are given while a model runs, as far as rounding their weights must know it.

Letters: K inputs of a product, X [K, tokens] what it was given.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Inputs:
    """X X^T [K, K] of what products were given, once for those that were given the same.

    Args:
        modules: the products by name; those of one layer.
    """

    def __init__(self, modules: dict[str, nn.Module]):
        self._modules = modules
        self._sums: list[torch.Tensor] = []
        self._places: dict[str, int] = {}
        self._seen: list[torch.Tensor] = []

    def next(self) -> None:
        """What comes is of another prompt."""
        self._seen.clear()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Add whatever the products are given inside the block."""

        def note(name: str) -> Callable[[nn.Module, tuple], None]:
            return lambda module, args: self.add(name, args[0])

        hooks = [m.register_forward_pre_hook(note(n)) for n, m in self._modules.items()]
        try:
            yield
        finally:
            self._seen.clear()
            for hook in hooks:
                hook.remove()

    def add(self, name: str, given: torch.Tensor) -> None:
        """[..., K] of a product; the products of a layer are asked in the same order each time."""
        for place, seen in enumerate(self._seen):
            if seen is given:
                self._places[name] = place
                return
        self._seen.append(given)
        place = self._places[name] = len(self._seen) - 1
        rows = given.flatten(0, -2).float()
        if place == len(self._sums):
            self._sums.append(rows.new_zeros(rows.shape[1], rows.shape[1]))
        self._sums[place].addmm_(rows.T, rows)

    def of(self, name: str) -> torch.Tensor:
        """Of a product."""
        return self._sums[self._places[name]]
