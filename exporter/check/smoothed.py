"""The factors of a model's layers while it is calibrated, and what they change beside the products."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..quantised.given import Inputs
from ..quantised.rounding import Rounding
from ..quantised.smoothing import Place, divided, is_exact, places, searched

GAINS = "int8"
"""Weights that gain: kernels round a whole token at once there. Beside GPTQ int4 in groups does not."""
KEPT = 512
"""Tokens of what a product was given that factors are searched on."""


class Smoothing:
    """Factors of all layers.

    Args:
        model: changed in place: norms and biases; products are not.
        path: of its layers.
        head_dim: d.
        rounding: of the products.
        scored: layers whose normed input a score reads; that stays as it is.

    Attributes:
        changed: norms and biases by name, as they are now, and the factors that they were divided by.
    """

    def __init__(self, model: Any, path: str, head_dim: int, rounding: Rounding, scored: set[int]):
        self._model, self._path = model, path
        self._head_dim, self._rounding = head_dim, rounding
        self._scored = scored
        self._columns: dict[str, torch.Tensor] = {}
        self._rows: dict[str, torch.Tensor] = {}
        self.changed: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
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
        for place in places(layer, self._head_dim, run):
            name = f"{self._path}.{i}.{place.readers[0]}.weight"
            readers: list[Any] = [layer.get_submodule(reader) for reader in place.readers]
            source = layer.get_submodule(place.source)
            scored = i in self._scored and source is norm
            if scored or not self._takes(source) or not is_exact(layer, place, run):
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
            self._rows[f"{name}.weight"] = factors
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
            self.changed[f"{name}.{leaf}"] = numbers, factors
        for reader in place.readers:
            width: Any = layer.get_submodule(reader).in_features
            self._columns[f"{self._path}.{i}.{reader}.weight"] = place.spread(factors, width)
        self._moved += 1

    def smoothed(
        self, name: str, weight: torch.Tensor, hessian: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A product's weight [N, K], and the X X^T [K, K] of what it is given, with their factors moved."""
        columns, rows = self._columns.get(name), self._rows.get(name)
        if columns is not None:
            weight, hessian = weight.float() * columns, hessian / columns / columns[:, None]
        if rows is not None:
            weight = weight.float() / rows[:, None]
        return weight, hessian

    @property
    def told(self) -> str:
        """For people."""
        places = self._moved + self._kept + self._left
        told = f"moved factors of channels at {self._moved} of {places} places"
        told += f"; at {self._kept} they gain nothing" if self._kept else ""
        return told + (f"; {self._left} cannot take them in" if self._left else "")
