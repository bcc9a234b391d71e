"""One safetensors file for all graphs of a bundle, written tensor by tensor.

The format is a length, a JSON header and the raw tensors (safetensors specification); the header is
padded so that the data starts on a page and can be mapped. It is written here, not by the library,
because the library wants all tensors in memory at once.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import struct
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import onnx_ir as ir
import torch

from ...dtypes import of_torch
from ...engines.bundle.manifest import File
from ...errors import LuvcError

PAGE = 4096
MADV_PAGEOUT = 21  # Linux 5.4: reclaim these pages now


def release(tensor: torch.Tensor) -> None:
    """Let the system take back the memory of a mapped file's pages; other memory stays as it is.

    Without this a whole checkpoint, read once, counts as the process's memory.
    """
    start = tensor.data_ptr() // PAGE * PAGE
    size = tensor.data_ptr() + tensor.numel() * tensor.element_size() - start
    with contextlib.suppress(OSError, AttributeError):  # not Linux: nothing to do
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), MADV_PAGEOUT)


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


class WeightsFile:
    """`weights.safetensors` of a bundle: tensors by checkpoint name, and where each lies.

    Args:
        path: the file; written by `write`.
        tensors: name to tensor; the same storage under two names is written once.
        dtype: floating-point tensors are written in; one at a time is converted.
    """

    def __init__(self, path: Path, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype):
        self.path = path
        self.tensors = dict(tensors)
        self.dtype = dtype
        self._place: dict[str, tuple[int, int]] = {}
        header: dict[str, dict] = {}
        first: dict[tuple, str] = {}
        end = 0
        for name, t in self.tensors.items():
            storage = t.data_ptr(), t.shape, t.dtype
            if storage in first:  # tied weights: the same bytes under two names
                self._place[name] = self._place[first[storage]]
                continue
            first[storage] = name
            size = t.numel() * self._dtype(t).itemsize
            self._place[name] = end, size
            header[name] = {
                "dtype": of_torch(self._dtype(t)).safetensors,
                "shape": list(t.shape),
                "data_offsets": [end, end + size],
            }
            end += size
        self._written = list(header)
        self._stopped = threading.Event()
        text = json.dumps(header).encode()
        self._text = text + b" " * (-(len(text) + 8) % PAGE)
        self.bytes = 8 + len(self._text) + end

    def _dtype(self, tensor: torch.Tensor) -> torch.dtype:
        return self.dtype if tensor.is_floating_point() else tensor.dtype

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

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
        for name in self._written:
            if self._stopped.is_set():
                raise InterruptedError(f"{self.path} is not wanted any more")
            tensor = self.tensors[name].detach()
            stored = tensor.to(self._dtype(tensor)).contiguous()
            _check_finite(name, tensor, stored)
            yield stored.reshape(-1).view(torch.uint8).numpy().data
            release(tensor)

    @contextlib.contextmanager
    def in_background(self) -> Iterator[Future[File]]:
        """`write` in a thread beside what is done within, stopped where that fails."""
        interval = sys.getswitchinterval()
        with contextlib.ExitStack() as stack:
            # the tracer is all Python: by default the thread would wait 5 ms for each call
            sys.setswitchinterval(interval / 50)
            stack.callback(sys.setswitchinterval, interval)
            pool = stack.enter_context(ThreadPoolExecutor(1))
            try:
                yield pool.submit(self.write)
            except BaseException:
                self._stopped.set()
                raise

    def reference(self, name: str, folder: Path) -> ir.ExternalTensor:
        """The tensor as external data, for a graph that lies in `folder`."""
        tensor = self.tensors[name]
        start, size = self._place[name]
        return ir.ExternalTensor(
            location=os.path.relpath(self.path, folder),
            offset=8 + len(self._text) + start,
            length=size,
            dtype=of_torch(self._dtype(tensor)).onnx_ir,
            shape=ir.Shape(list(tensor.shape)),
            name=name,
            base_dir=str(folder),
        )
