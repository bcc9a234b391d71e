"""One safetensors file for all graphs of a bundle, written tensor by tensor.

The format is a length, a JSON header and the raw tensors (safetensors specification); the header is
padded so that the data starts on a page and can be mapped. It is written here, not by the library,
because the library wants all tensors in memory at once.
"""

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir
import torch

PAGE = 4096
NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
ONNX = {
    torch.float32: ir.DataType.FLOAT,
    torch.float16: ir.DataType.FLOAT16,
    torch.bfloat16: ir.DataType.BFLOAT16,
    torch.int64: ir.DataType.INT64,
}


class WeightsFile:
    """`weights.safetensors` of a bundle: tensors by checkpoint name, and where each lies.

    Args:
        path: the file; written by `write`.
        tensors: name to tensor; the same storage under two names is written once.
    """

    def __init__(self, path: Path, tensors: Mapping[str, torch.Tensor]):
        self.path, self.tensors = path, dict(tensors)
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
            size = t.numel() * t.element_size()
            self._place[name] = end, size
            header[name] = {
                "dtype": NAMES[t.dtype],
                "shape": list(t.shape),
                "data_offsets": [end, end + size],
            }
            end += size
        self._written = list(header)
        text = json.dumps(header).encode()
        self._text = text + b" " * (-(len(text) + 8) % PAGE)
        self.bytes = 8 + len(self._text) + end

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def write(self) -> None:
        """Write and sync the file.

        Raises:
            OSError: the disk is full or not writable.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("wb") as f:
            f.write(struct.pack("<Q", len(self._text)) + self._text)
            for name in self._written:
                flat = self.tensors[name].detach().contiguous().reshape(-1).view(torch.uint8)
                f.write(flat.numpy().data)
            f.flush()
            os.fsync(f.fileno())

    def reference(self, name: str, folder: Path) -> ir.ExternalTensor:
        """The tensor as external data, for a graph that lies in `folder`."""
        tensor = self.tensors[name]
        start, size = self._place[name]
        return ir.ExternalTensor(
            os.path.relpath(self.path, folder), 8 + len(self._text) + start, size,
            ONNX[tensor.dtype], shape=ir.Shape(list(tensor.shape)), name=name, base_dir=str(folder),
        )  # fmt: skip
