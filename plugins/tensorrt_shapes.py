"""What TensorRT's descriptions of tensors say, in the words of the contract."""

from ..dtypes import TENSORRT
from ..errors import LuvcError
from .contract import Operator


def element(tensor) -> str:
    """Name of the element type, as in contract.py."""
    name = str(tensor.dtype.name)
    return TENSORRT[name].name if name in TENSORRT else name.lower()


def fixed_size(operator: Operator, tensor, axis: int, meaning: str) -> int:
    """Size of an axis that must be known when the engine is built."""
    size = tensor.shape_expr[axis]
    if not size.is_constant:
        raise LuvcError(
            f"{operator.name}: {meaning} varies at run time; the kernels are compiled for one "
            "value. Fix it in the ONNX graph."
        )
    return size.constant_value()
