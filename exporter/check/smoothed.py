"""The factors of a model's layers while it is calibrated, and what they change beside the products."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...engines.bundle.schedule import Schedule
from ...plugins.scores.base import BEHIND
from ..planning.methods import score_of
from ..quantised.factors import Factors
from ..quantised.given import Inputs
from ..quantised.rounding import Rounding
from ..quantised.smoothing import Place, divided, is_exact, places, searched

KEPT = 512
"""Tokens of what a product was given that factors are searched on."""


@dataclass(frozen=True)
class Read:
    """Layers of which scores read what norms give: with factors they would choose by something else.

    What else a score reads stays by itself: hidden states, and queries, keys and outputs of attention and
    MLP, in whose products the factors are undone.

    Attributes:
        ahead: layers whose normed input is a score's to read.
        behind: layers of which a score reads what attention and MLP were given.
    """

    ahead: frozenset[int] = frozenset()
    behind: frozenset[int] = frozenset()

    @classmethod
    def by(cls, schedules: Iterable[Schedule]) -> "Read":
        """By the scores of these schedules."""
        scored = [(layer, score_of(s.score).reads) for s in schedules for layer in s.scored]
        behind = frozenset(layer - 1 for layer, reads in scored if BEHIND in reads)
        return cls(frozenset(layer for layer, _ in scored), behind)

    def of(self, layer: int, source: nn.Module, norm: nn.Module) -> bool:
        """Whether outputs of a module of a layer, whose input norm is given, are read."""
        if isinstance(source, nn.Linear):
            return False
        return layer in self.behind or (layer in self.ahead and source is norm)


class Smoothing:
    """Factors of all layers.

    Args:
        model: changed in place: norms and biases; products are not.
        path: of its layers.
        head_dim: d.
        rounding: of the products.
        read: what scores read; that stays as it is.

    Attributes:
        factors: found so far, and norms and biases as they are now.
    """

    def __init__(self, model: Any, path: str, head_dim: int, rounding: Rounding, read: Read):
        self._model, self._path = model, path
        self._rounding, self._read = rounding, read
        self.factors = Factors(head_dim)
        self._moved = self._kept = 0
        self._left = 0
        owners = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
        self._twice = {one for one, count in owners.items() if count > 1}

    def search(
        self, i: int, given: Inputs, norm: nn.Module, run: Callable[[], torch.Tensor]
    ) -> None:
        """Find the factors of a layer.

        Args:
            i: the layer.
            given: what its products were given.
            norm: at its input.
            run: takes a question through it.
        """
        layer = self._model.get_submodule(f"{self._path}.{i}")
        for place in places(layer, self.factors.head_dim, run):
            name = f"{self._path}.{i}.{place.readers[0]}.weight"
            readers: list[Any] = [layer.get_submodule(reader) for reader in place.readers]
            source = layer.get_submodule(place.source)
            read = self._read.of(i, source, norm)
            if read or not self._takes(source) or not is_exact(layer, place, run):
                self._left += 1
                continue
            weights = [reader.weight for reader in readers]
            seen = given.some(name), given.largest(name)
            factors = searched(place, weights, *seen, self._rounding)
            if factors is None:
                self._kept += 1
            else:
                self._move(i, layer, place, factors)

    def _takes(self, source: Any) -> bool:
        """Whether a norm or product can take factors in, and nobody else has its parameters."""
        if any(id(p) in self._twice for p in source.parameters()):
            return False
        return (
            isinstance(source, nn.Linear)
            or divided(source, torch.ones_like(source.weight)) is not None
        )

    def _move(self, i: int, layer: nn.Module, place: Place, factors: torch.Tensor) -> None:
        source: Any = layer.get_submodule(place.source)
        name = f"{self._path}.{i}.{place.source}"
        if isinstance(source, nn.Linear):
            bias = source.bias
            changed = {} if bias is None else {"bias": bias.detach().float() / factors}
        else:
            found = divided(source, factors)
            if found is None:  # too far apart for the norm's own arithmetic
                self._left += 1
                return
            changed = found
        for leaf, numbers in changed.items():
            setattr(source, leaf, nn.Parameter(numbers, requires_grad=False))
            self.factors.numbers[f"{name}.{leaf}"] = numbers
        self.factors.add(name, [f"{self._path}.{i}.{reader}" for reader in place.readers], factors)
        self._moved += 1

    def smoothed(
        self, name: str, weight: torch.Tensor, hessian: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A product's weight [N, K], and the X X^T [K, K] of what it is given, with their factors moved."""
        columns = self.factors.columns(name, weight.shape[1])
        if columns is not None:
            hessian = hessian / columns / columns[:, None]
        return self.factors.scaled(name, weight), hessian

    @property
    def told(self) -> str:
        """For people."""
        places = self._moved + self._kept + self._left
        told = f"moved factors of channels at {self._moved} of {places} places"
        told += f"; at {self._kept} they gain nothing" if self._kept else ""
        return told + (f"; {self._left} cannot take them in" if self._left else "")
