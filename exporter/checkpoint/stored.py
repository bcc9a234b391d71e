"""A bundle's weights held against the checkpoint's files, without the loader that brought them there."""

from collections.abc import Iterator
from pathlib import Path

import torch

from ...errors import LuvcError
from .family import Family
from .weights import weight_files

SAMPLE = 24
"""Tensors that are compared, spread over the whole file."""
ROWS = 16
"""Of each; a matrix need not be read whole."""
COMMON = 3
"""Last parts of a name that loaders leave as they are, from the layer's number on."""


def check_stored(family: Family, weights: Path) -> int:
    """Compare a sample of a bundle's tensors, by name and value, with the checkpoint's own.

    Loaders rename what stands before a layer's number, so that a name may stand for a tensor of either
    tower: one of those that end alike must be equal.

    Args:
        family: of the checkpoint.
        weights: the bundle's file.

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
        names = sorted(n for n in tensors.keys() if _ending(n) in places)  # noqa: SIM118
        for name in names[:: max(1, len(names) // SAMPLE)]:
            ours = _rows(tensors.get_slice(name))
            shape = tensors.get_slice(name).get_shape()
            originals = list(_originals(places[_ending(name)], shape))
            if originals and not any(torch.equal(ours, t.to(ours.dtype)) for t in originals):
                raise LuvcError(
                    f"{family.source}: {name} was loaded with other values than its file holds, so "
                    "the bundle would be another model; this version does not know such checkpoints"
                )
            compared += bool(originals)
    return compared


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
