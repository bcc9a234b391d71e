"""A bundle's weights held against the checkpoint's files, without the loader that brought them there."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import LuvcError
from ..quantised.rounding import CODES, SCALES, Rounding
from .family import Family
from .weights import weight_files

SAMPLE = 24
"""Tensors that are compared, spread over the whole file."""
ROWS = 16
"""Of each; a matrix need not be read whole."""
CLOSE = 1 + 1e-4
"""How much further than half a step a weight may lie: the division by the scale is rounded, too."""
COMMON = 3
"""Last parts of a name that loaders leave as they are, from the layer's number on."""


def check_stored(family: Family, weights: Path, rounding: Rounding | None = None) -> int:
    """Compare a sample of a bundle's tensors, by name and value, with the checkpoint's own.

    Loaders rename what stands before a layer's number, so that a name may stand for a tensor of either
    tower: one of those that end alike must be equal.

    Args:
        family: of the checkpoint.
        weights: the bundle's file.
        rounding: of the tensors that it holds as codes; they must be within half a step.

    Returns:
        Tensors that were compared; 0 where the checkpoint has no safetensors files.

    Raises:
        LuvcError: a tensor is none of those with its name.
    """
    from safetensors import safe_open

    places: dict[str, list[tuple[Path, str]]] = {}
    for file in weight_files(family):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 it is no mapping
                places.setdefault(_ending(name), []).append((file, name))
    compared = 0
    with safe_open(weights, "pt") as tensors:
        names = sorted(n for n in tensors.keys() if _ending(n.removesuffix(CODES)) in places)  # noqa: SIM118
        for name in names[:: max(1, len(names) // SAMPLE)]:
            ours = _Sample.coded(tensors, name, rounding) if rounding else None
            ours = ours or _Sample.plain(tensors, name)
            found = places[_ending(name.removesuffix(CODES))]
            originals = list(_originals(found, ours.shape))
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
    """

    shape: list[int]
    rows: torch.Tensor
    near: torch.Tensor | None = None

    @classmethod
    def plain(cls, tensors: Any, name: str) -> "_Sample":
        """A tensor that is stored as numbers."""
        part = tensors.get_slice(name)
        return cls(part.get_shape(), _rows(part))

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
        return cls(rounding.weight_shape(part.get_shape()), codes * step, step / 2 * CLOSE)

    def of(self, original: torch.Tensor) -> bool:
        """Whether these are rows of the checkpoint's tensor."""
        if self.near is None:
            return torch.equal(self.rows, original.to(self.rows.dtype))
        return bool(((original.float() - self.rows).abs() <= self.near).all())


def _originals(places: list[tuple[Path, str]], shape: list[int]) -> Iterator[torch.Tensor]:
    """First rows of the checkpoint's tensors of this shape."""
    from safetensors import safe_open

    for file, name in places:
        with safe_open(file, "pt") as tensors:
            part = tensors.get_slice(name)
            if part.get_shape() == shape:
                yield _rows(part)


def _rows(part) -> torch.Tensor:
    return part[:ROWS] if part.get_shape() else part[...]


def _ending(name: str) -> str:
    """The name from the last layer's number on, or its last parts."""
    parts = name.split(".")
    numbered = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[numbered[-1] :] if numbered else parts[-COMMON:])
