"""Tensors of a checkpoint's files by name, read one at a time."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ....errors import LuvcError, brief

PLAIN = ("F64", "F32", "F16", "BF16")
"""Types of weights in safetensors files that a conversion keeps the meaning of; others need scales."""
LEFTOVERS = re.compile(r".*\.(rotary_emb\.inv_freq|position_ids)")
"""What older versions of transformers saved beside the weights: tables that the model makes by itself."""
MEND = "the checkpoint is damaged or of another version of its library: get it again"


@dataclass(frozen=True)
class Entry:
    """A tensor in a safetensors file.

    Attributes:
        name: in the file.
        file: where it lies.
        dtype: as the file's header says it: "I32", "F8_E4M3".
        shape: of it.
        handle: of the file, which is mapped.
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    handle: Any

    def read(self) -> torch.Tensor:
        """Its values; those of the mapped file where that can be."""
        return self.handle.get_tensor(self.name)

    def __str__(self) -> str:
        """For messages."""
        return f"{self.file.name}: {self.name} {self.dtype}{list(self.shape)}"


def entries_of(files: list[Path], source: str) -> dict[str, Entry]:
    """Every tensor of a checkpoint's files; their headers are read.

    Args:
        files: safetensors.
        source: what messages call the checkpoint.

    Raises:
        LuvcError: a file cannot be read, or ends before its tensors do.
    """
    from safetensors import SafetensorError, safe_open

    found: dict[str, Entry] = {}
    for file in files:
        try:
            handle = safe_open(file, "pt")
            for name in handle.keys():  # noqa: SIM118 it is no mapping
                part = handle.get_slice(name)
                found[name] = Entry(name, file, part.get_dtype(), tuple(part.get_shape()), handle)
        except (OSError, SafetensorError) as e:
            raise LuvcError(
                f"{source}: the weights cannot be loaded: {file.name}: {brief(e)}"
            ) from e
    return found


@dataclass(frozen=True)
class Parts:
    """The tensors that one quantised weight is stored as.

    Attributes:
        name: of the weight, as a plain checkpoint would have it.
        source: what messages call the checkpoint.
        entries: by part, such as "qweight" or "weight_scale".
    """

    name: str
    source: str
    entries: Mapping[str, Entry]

    def __contains__(self, part: str) -> bool:
        """Whether the weight has such a part."""
        return part in self.entries

    def entry(self, part: str, *dtypes: str, ndim: int | None = None) -> Entry:
        """A part of one of these types, with so many dimensions; of any, where none is said.

        Raises:
            LuvcError: it is missing, or another.
        """
        if part not in self.entries:
            there = ", ".join(sorted(self.entries))
            raise LuvcError(
                f"{self.source}: {self.name} is stored as {there}, without its {part}: complete the "
                "checkpoint (is a shard absent?)"
            )
        entry = self.entries[part]
        if dtypes and entry.dtype not in dtypes:
            raise self.wrong(part, f"is not {' or '.join(dtypes)}")
        if ndim is not None and len(entry.shape) != ndim:
            raise self.wrong(part, f"has {len(entry.shape)} dimensions, not {ndim}")
        if ndim is not None and 0 in entry.shape:
            raise self.wrong(part, "is empty")
        return entry

    def read(self, part: str, *dtypes: str, shape: tuple[int, ...] | None = None) -> torch.Tensor:
        """The values of a part of this shape; of any, where none is said.

        Raises:
            LuvcError: it is missing, or another.
        """
        entry = self.entry(part, *dtypes)
        if shape is not None and entry.shape != shape:
            raise self.wrong(part, f"should be {list(shape)}")
        return entry.read()

    def wrong(self, part: str, why: str) -> LuvcError:
        """What is told of a part that does not fit."""
        return LuvcError(f"{self.source}: {self.entries[part]} {why}: {MEND}")
