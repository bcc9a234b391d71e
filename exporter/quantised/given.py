"""What products are given while a model runs, as far as rounding their weights must know it.

Letters: K inputs of a product, X [K, tokens] what it was given.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Inputs:
    """X X^T [K, K] of what products were given, some of X and its largest, once for who was given the same.

    Args:
        modules: the products by name; those of one layer.
        every: one in so many tokens is kept.
    """

    def __init__(self, modules: dict[str, nn.Module], every: int = 1):
        self._modules, self._every = modules, every
        self._sums: list[torch.Tensor] = []
        self._largest: list[torch.Tensor] = []
        self._kept: list[list[torch.Tensor]] = []
        self._tokens: list[int] = []
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
            self._largest.append(rows.new_zeros(rows.shape[1]))
            self._kept.append([])
            self._tokens.append(0)
        self._sums[place].addmm_(rows.T, rows)
        self._largest[place] = self._largest[place].maximum(rows.abs().amax(0))
        self._kept[place].append(rows[-self._tokens[place] % self._every :: self._every].clone())
        self._tokens[place] += len(rows)

    def of(self, name: str) -> torch.Tensor:
        """X X^T of a product."""
        return self._sums[self._places[name]]

    def largest(self, name: str) -> torch.Tensor:
        """Of each channel that a product was given, [K]."""
        return self._largest[self._places[name]]

    def some(self, name: str) -> torch.Tensor:
        """Of the tokens that a product was given, [tokens, K]."""
        return torch.cat(self._kept[self._places[name]])
