"""Element types by every name they go by; each library is imported when its own is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    import torch as pytorch


@dataclass(frozen=True)
class ElementType:
    """One element type.

    Attributes:
        name: in manifests and contracts, and of numpy and torch.
        short: on the command line; None where it is no choice.
        bytes: of one element.
        onnx: member of ONNX's TensorProto.DataType; in lower case, what its type strings say.
        safetensors: in a file's header.
        tensorrt: member of TensorRT's DataType.
    """

    name: str
    short: str | None
    bytes: int
    onnx: str
    safetensors: str
    tensorrt: str

    @property
    def numpy(self) -> np.dtype:
        """As numpy's dtype; numpy itself has no bfloat16."""
        import numpy

        if self.name == "bfloat16":
            import ml_dtypes

            return numpy.dtype(ml_dtypes.bfloat16)
        return numpy.dtype(self.name)

    @property
    def torch(self) -> pytorch.dtype:
        """As torch's dtype."""
        import torch

        return getattr(torch, self.name)

    @property
    def onnx_ir(self) -> ir.DataType:
        """As onnx_ir's DataType."""
        import onnx_ir

        return onnx_ir.DataType[self.onnx]


FLOAT32 = ElementType("float32", "fp32", 4, onnx="FLOAT", safetensors="F32", tensorrt="FLOAT")
FLOAT16 = ElementType("float16", "fp16", 2, onnx="FLOAT16", safetensors="F16", tensorrt="HALF")
BFLOAT16 = ElementType("bfloat16", "bf16", 2, onnx="BFLOAT16", safetensors="BF16", tensorrt="BF16")
INT64 = ElementType("int64", None, 8, onnx="INT64", safetensors="I64", tensorrt="INT64")
INT8 = ElementType("int8", None, 1, onnx="INT8", safetensors="I8", tensorrt="INT8")
UINT8 = ElementType("uint8", None, 1, onnx="UINT8", safetensors="U8", tensorrt="UINT8")

DTYPES = {t.name: t for t in (FLOAT32, FLOAT16, BFLOAT16, INT64, INT8, UINT8)}
SHORT = {t.short: t for t in DTYPES.values() if t.short is not None}
TENSORRT = {t.tensorrt: t for t in DTYPES.values()}


def of_torch(dtype: pytorch.dtype) -> ElementType:
    """The element type of a torch tensor; a KeyError for what no graph here holds."""
    return DTYPES[str(dtype).removeprefix("torch.")]
