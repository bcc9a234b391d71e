"""A bundle's weights held against the checkpoint's files, without the loader that brought them there."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...errors import LuvcError
from ..quantised.calibrated import Calibrated
from ..quantised.rounding import CODES, SCALES, Rounding
from .family import Family
from .quantised.names import ending
from .quantised.parts import Entry, entries_of
from .quantised.weights import QuantisedWeights
from .weights import quantised_weights, weight_files

SAMPLE = 24
"""Tensors that are compared, spread over the whole file."""
ROWS = 16
"""Of each; a matrix need not be read whole."""
ALIKE = 0.5
"""Cosine of calibrated rows to the checkpoint's, at least: they make up for each other's errors, and those of
another tensor have about 0."""
CLOSE = 1 + 1e-4
"""How much further than half a step a weight may lie: the division by the scale is rounded, too."""


def check_stored(family: Family, weights: Path, rounding: Rounding | None = None) -> int:
    """Compare a sample of a bundle's tensors, by name and value, with the checkpoint's own.

    Loaders rename what stands before a layer's number, so that a name may stand for a tensor of either
    tower: one of those that end alike must be equal.

    Args:
        family: of the checkpoint.
        weights: the bundle's file.
        rounding: of the tensors that it holds as codes; they must be within half a step, and where they were
            calibrated, look alike.

    Returns:
        Tensors that were compared; 0 where the checkpoint has no safetensors files.

    Raises:
        LuvcError: a tensor is none of those with its name.
    """
    from safetensors import safe_open

    places = _places(family)
    compared = 0
    with safe_open(weights, "pt") as tensors:
        names = sorted(n for n in tensors.keys() if ending(n.removesuffix(CODES)) in places)  # noqa: SIM118
        for name in names[:: max(1, len(names) // SAMPLE)]:
            ours = _Sample.coded(tensors, name, rounding) if rounding else None
            ours = ours or _Sample.plain(tensors, name, rounding)
            found = places[ending(name.removesuffix(CODES))]
            originals = [original.rows() for original in found if original.shape == ours.shape]
            if originals and not any(ours.of(t) for t in originals):
                raise LuvcError(
                    f"{family.source}: {name} was loaded with other values than its file holds, so "
                    "the bundle would be another model; this version does not know such checkpoints"
                )
            compared += bool(originals)
    return compared


@dataclass(frozen=True)
class _Sample:
    """First rows of a tensor in the bundle.

    Attributes:
        shape: of the whole tensor, as the checkpoint has it.
        rows: as the bundle's graphs read them.
        near: how far the checkpoint's may be from them; None where they must be equal.
        alike: whether it is enough that both look alike.
        scaled: the checkpoint's rows -> as they were before they were rounded.
        divisor: what the checkpoint's were divided by, of the same shape.
    """

    shape: list[int]
    rows: torch.Tensor
    near: torch.Tensor | None = None
    alike: bool = False
    scaled: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.float
    divisor: torch.Tensor | None = None

    @classmethod
    def plain(cls, tensors: Any, name: str, rounding: Rounding | None) -> "_Sample":
        """A tensor that is stored as numbers."""
        part, divisor = tensors.get_slice(name), None
        if isinstance(rounding, Calibrated) and name in rounding.factors.numbers:
            divisor = rounding.factors.rows(name)
        rows = None if divisor is None else divisor[:ROWS]
        return cls(part.get_shape(), _rows(part), divisor=rows)

    @classmethod
    def coded(cls, tensors: Any, name: str, rounding: Rounding) -> "_Sample | None":
        """A tensor that is stored as codes and scales; None where it is not."""
        if not name.endswith(CODES):
            return None
        part = tensors.get_slice(name)
        scales = tensors.get_slice(name.removesuffix(CODES) + SCALES)[:ROWS].float()
        codes = part[:, :ROWS] if rounding.transposed else part[:ROWS]
        codes = rounding.unpacked(codes).float()
        scales = scales.view(len(codes), -1)
        step = scales.repeat_interleave(codes.shape[1] // scales.shape[1], 1)
        shape = rounding.weight_shape(part.get_shape())
        if not isinstance(rounding, Calibrated):
            return cls(shape, codes * step, step / 2 * CLOSE)
        scaled = partial(rounding.factors.scaled, name.removesuffix(CODES))
        return cls(shape, codes * step, alike=True, scaled=scaled)

    def of(self, original: torch.Tensor) -> bool:
        """Whether these are rows of the checkpoint's tensor."""
        if self.divisor is not None:
            return self._divided(original.float(), self.divisor)
        if self.alike:
            # with the factors in both: divided out of ours, a channel of little weight would be noise
            both = self.rows.flatten(), self.scaled(original).flatten()
            return float(torch.cosine_similarity(*both, 0)) >= ALIKE or torch.equal(*both)
        if self.near is None:
            return torch.equal(self.rows, original.to(self.rows.dtype))
        return bool(((original.float() - self.rows).abs() <= self.near).all())

    def _divided(self, original: torch.Tensor, divisor: torch.Tensor) -> bool:
        """Whether this is the checkpoint's, divided; some norms add one to their weight first."""
        info = torch.finfo(self.rows.dtype)
        for more in (0, 1):
            rows = (original + more) / divisor - more
            limit = 4 * info.eps * (more + rows.abs().clamp_min(info.tiny))
            near = (rows - self.rows.float()).abs() <= limit
            if bool((near & rows.isfinite()).all()):
                return True
        return False


@dataclass(frozen=True)
class _Original:
    """A tensor of the checkpoint.

    Attributes:
        shape: of it, as numbers.
        rows: reads its first rows.
    """

    shape: list[int]
    rows: Callable[[], torch.Tensor]


def _places(family: Family) -> dict[str, list[_Original]]:
    """The checkpoint's tensors by the end of their names."""
    places: dict[str, list[_Original]] = {}
    if family.format is None:
        for name, entry in entries_of(weight_files(family), family.source).items():
            original = _Original(list(entry.shape), partial(_first_rows, entry))
            places.setdefault(ending(name), []).append(original)
        return places
    weights = quantised_weights(family)
    for name in (*weights.plain, *weights.packed):
        original = _Original(list(weights.shape(name)), partial(_numbers, weights, name))
        places.setdefault(ending(name), []).append(original)
    return places


def _first_rows(entry: Entry) -> torch.Tensor:
    return _rows(entry.handle.get_slice(entry.name))


def _numbers(weights: QuantisedWeights, name: str) -> torch.Tensor:
    found = weights.numbers(name)
    return found[:ROWS] if found.ndim else found


def _rows(part) -> torch.Tensor:
    return part[:ROWS] if part.get_shape() else part[...]
