"""One safetensors file for all graphs of a bundle, written tensor by tensor.

The format is a length, a JSON header and the raw tensors (safetensors specification); the header is
padded so that the data starts on a page and can be mapped. It is written here, not by the library,
because the library wants all tensors in memory at once.
"""

import contextlib
import hashlib
import json
import math
import os
import struct
import sys
import threading
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from ...dtypes import of_torch
from ...engines.bundle.manifest import File
from ...errors import LuvcError
from ..checkpoint.mapped import PAGE, release
from ..quantised.rounding import CODES, SCALES, Rounding


def _check_finite(name: str, tensor: torch.Tensor, stored: torch.Tensor) -> None:
    """Refuse what would make every answer nothing; a sum tells, and is as fast as memory."""
    if not stored.is_floating_point() or stored.sum(dtype=torch.float32).isfinite():
        return
    if stored.isfinite().all():  # only the sum went too far
        return
    if tensor.isfinite().all():
        raise LuvcError(
            f"weight {name} is larger than {str(stored.dtype).removeprefix('torch.')} holds: export with "
            "--dtype bf16, or with fp32 for a CPU"
        )
    raise LuvcError(f"weight {name} holds NaN or infinity: the checkpoint is damaged, get it again")


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies: `size` bytes from `start` on, counted from the end of the header."""

    start: int
    size: int
    shape: tuple[int, ...]
    dtype: torch.dtype


class WeightsFile:
    """`weights.safetensors` of a bundle: tensors by checkpoint name, and where each lies.

    A quantised tensor lies there as NAME.codes and NAME.scales.

    Args:
        path: the file; written by `write`.
        tensors: name to tensor; the same storage under two names is written once.
        dtype: floating-point tensors are written in; one at a time is converted.
        quantised: names of tensors that are quantised. Where one of them shares its storage with one that
            is not (a head tied to the embedding), the numbers are written too.
        rounding: of these.
    """

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, torch.Tensor],
        dtype: torch.dtype,
        quantised: Container[str] = (),
        rounding: Rounding | None = None,
    ):
        self.path = path
        self.dtype = dtype
        self.rounding = rounding
        self._places: dict[str, _Place] = {}
        self._sources: list[tuple[str, torch.Tensor, bool]] = []  # what is written, in order
        self._numbers: dict[str, str] = {}  # name in the file by name of a tensor
        self._codes: dict[str, str] = {}
        self._end = 0
        same: dict[tuple, list[str]] = {}
        for name, t in tensors.items():
            where = t.data_ptr() or t.untyped_storage()._cdata  # shapes alone have no address
            same.setdefault((where, t.shape, t.dtype), []).append(name)
        for names in same.values():
            for coded in (False, True):
                found = [n for n in names if (n in quantised) == coded]
                if found:
                    self._add(found[0], tensors[found[0]], coded)
                    (self._codes if coded else self._numbers).update(dict.fromkeys(names, found[0]))
        header = {name: self._described(place) for name, place in self._places.items()}
        self._stopped = threading.Event()
        text = json.dumps(header).encode()
        self._text = text + b" " * (-(len(text) + 8) % PAGE)
        self.bytes = 8 + len(self._text) + self._end

    def _add(self, name: str, tensor: torch.Tensor, coded: bool) -> None:
        """Give a tensor its place behind the others."""
        self._sources.append((name, tensor, coded))
        if not coded:
            self._place(name, tensor.shape, self._dtype(tensor))
            return
        assert self.rounding is not None
        self._place(name + CODES, self.rounding.codes_shape(tensor.shape), self.rounding.stored)
        self._place(name + SCALES, self.rounding.scales_shape(tensor.shape), self.rounding.dtype)

    def _place(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> None:
        size = math.prod(shape) * dtype.itemsize
        self._places[name] = _Place(self._end, size, tuple(shape), dtype)
        self._end += size

    @staticmethod
    def _described(place: _Place) -> dict[str, Any]:
        """As the file's header says it."""
        return {
            "dtype": of_torch(place.dtype).safetensors,
            "shape": list(place.shape),
            "data_offsets": [place.start, place.start + place.size],
        }

    def _dtype(self, tensor: torch.Tensor) -> torch.dtype:
        return self.dtype if tensor.is_floating_point() else tensor.dtype

    def __contains__(self, name: str) -> bool:
        """Whether the file holds the numbers of a tensor of this name."""
        return name in self._numbers

    def quantised(self, name: str) -> bool:
        """Whether the file holds codes of a tensor of this name."""
        return name in self._codes

    def write(self) -> File:
        """Write and sync the file -> its size and hash.

        Raises:
            LuvcError: a weight is no number, or too large for the dtype.
            OSError: the disk is full or not writable, or the writing was stopped.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with self.path.open("wb") as f:
            for data in self._pieces():
                f.write(data)
                digest.update(data)
            f.flush()
            os.fsync(f.fileno())
        return File(bytes=self.bytes, sha256=digest.hexdigest())

    def _pieces(self) -> Iterator[bytes | memoryview]:
        """Header and tensors; of these one at a time is in memory."""
        yield struct.pack("<Q", len(self._text)) + self._text
        for name, tensor, coded in self._sources:
            if self._stopped.is_set():
                raise InterruptedError(f"{self.path} is not wanted any more")
            for stored in self._stored(name, tensor.detach(), coded):
                yield stored.reshape(-1).view(torch.uint8).numpy().data
            release(tensor)

    def _stored(self, name: str, tensor: torch.Tensor, coded: bool) -> tuple[torch.Tensor, ...]:
        """What is written of a tensor: its numbers, or codes and scales."""
        if not coded:
            stored = tensor.to(self._dtype(tensor)).contiguous()
            _check_finite(name, tensor, stored)
            return (stored,)
        assert self.rounding is not None
        codes, scales = self.rounding.encoded(tensor, name)
        _check_finite(name, tensor, self.rounding.reach(scales))
        return codes, scales

    @contextlib.contextmanager
    def in_background(self) -> Iterator[Future[File]]:
        """`write` in a thread beside what is done within, stopped where that fails."""
        interval = sys.getswitchinterval()
        with contextlib.ExitStack() as stack:
            # the tracer is all Python: by default the thread would wait 5 ms for each call
            sys.setswitchinterval(interval / 50)
            stack.callback(sys.setswitchinterval, interval)
            pool = stack.enter_context(ThreadPoolExecutor(1))
            pool.submit(int).result()  # a signal while a thread starts would leave it unwaited for
            try:
                yield pool.submit(self.write)
            except BaseException:
                self._stopped.set()
                raise

    def reference(self, name: str, folder: Path) -> ir.ExternalTensor:
        """The numbers of a tensor as external data, for a graph that lies in `folder`."""
        place = self._places[self._numbers[name]]
        dtype = of_torch(place.dtype).onnx_ir
        return self._external(name, place, dtype, place.shape, folder)

    def codes_reference(
        self, name: str, folder: Path
    ) -> tuple[ir.ExternalTensor, ir.ExternalTensor]:
        """Codes and scales of a tensor as external data: INT8 [K, N] and [N], INT4 [N, K] and [N, G]."""
        assert self.rounding is not None
        first = self._codes[name]
        codes, scales = (self._places[first + end] for end in (CODES, SCALES))
        shape = list(codes.shape)
        if self.rounding.how.kind == "int4":
            shape[-1] *= 2  # two in a byte
        dtype = ir.DataType[self.rounding.how.kind.upper()]
        return (
            self._external(first + CODES, codes, dtype, shape, folder),
            self._external(
                first + SCALES, scales, of_torch(scales.dtype).onnx_ir, scales.shape, folder
            ),
        )

    def _external(
        self, name: str, place: _Place, dtype: ir.DataType, shape: Sequence[int], folder: Path
    ) -> ir.ExternalTensor:
        return ir.ExternalTensor(
            location=os.path.relpath(self.path, folder),
            offset=8 + len(self._text) + place.start,
            length=place.size,
            dtype=dtype,
            shape=ir.Shape(list(shape)),
            name=name,
            base_dir=str(folder),
        )
