"""A quantised checkpoint as a plain one: a file of weights that the loader maps and that is gone with it.

So names, ties, shapes and what is missing are the loader's to check, as they are of every checkpoint, and
memory holds one weight at a time.
"""

import json
import math
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from .... import drafts
from ....dtypes import DTYPES, of_torch
from ....errors import LuvcError
from ....places import NO_ROOM, writing
from ..mapped import PAGE
from .weights import QuantisedWeights

FILE = "model.safetensors"
KEPT = ("config.json", "generation_config.json")
"""Of the checkpoint's other files, those that the loader of a model reads."""
LARGE = "/var/tmp"
"""Where temporary files may be large; others often lie in memory."""


@contextmanager
def plain_copy(weights: QuantisedWeights, folder: Path) -> Iterator[Path]:
    """A folder with the weights as numbers, removed at the end; what is mapped of it stays readable.

    Args:
        weights: of the checkpoint.
        folder: of the checkpoint.

    Raises:
        LuvcError: a weight is damaged, or there is no room for the copy.
    """
    place = _place()
    if not os.access(place.parent, os.W_OK | os.X_OK):
        raise LuvcError(
            f"{weights.format.source} is quantised, and its weights as numbers need a place for a while: "
            f"{place.parent} is no folder with write access; name another one in TMPDIR"
        )
    drafts.remove_leftovers(place.parent, re.escape(place.name))
    with writing(place, NO_ROOM), drafts.held(place, _private) as copy:
        for name in KEPT:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, copy / name)
        _write(weights, copy / FILE)
        yield copy


def _private(folder: Path) -> None:
    os.mkdir(folder, 0o700)


def _place() -> Path:
    """What the copy's folder is named after; TMPDIR says where."""
    large = LARGE if os.path.isdir(LARGE) and os.access(LARGE, os.W_OK) else tempfile.gettempdir()
    user = os.getuid()  # the drafts of others are left to them
    return Path(os.environ.get("TMPDIR") or large) / f"luvc-weights-{user}"


def _write(weights: QuantisedWeights, file: Path) -> None:
    """All weights, as safetensors."""
    header, end = {}, 0
    for name in (*weights.plain, *weights.packed):
        shape = weights.shape(name)
        kind = weights.plain[name].dtype if name in weights.plain else _kind(weights.dtype)
        size = math.prod(shape) * _BYTES[kind]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    text += b" " * (-(len(text) + 8) % PAGE)
    _check_space(weights, file, end)
    with file.open("wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in header:
            tensor = weights.numbers(name).contiguous()
            f.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
            weights.let_go(name)


def _kind(dtype: torch.dtype) -> str:
    return of_torch(dtype).safetensors


_BYTES = {"F64": 8} | {t.safetensors: t.bytes for t in DTYPES.values()}


def _check_space(weights: QuantisedWeights, file: Path, needed: int) -> None:
    free = shutil.disk_usage(file.parent).free
    if free < needed:
        raise LuvcError(
            f"{weights.format.source} is quantised, and its weights as numbers take {needed / 2**20:.0f} MiB "
            f"for a while; {file.parent.parent} has {free / 2**20:.0f} MiB free: make room, or name another "
            "place in TMPDIR"
        )
