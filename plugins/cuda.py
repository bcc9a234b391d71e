"""The operators on PyTorch's CUDA tensors: the kernels that TensorRT runs, without TensorRT.

`register()` makes the functions in each folder's cuda.py the CUDA form of those in its reference.py.
Letters: contract.py.
"""

from functools import cache

from ..errors import LuvcError
from . import nvrtc
from .operators import OPERATORS

KERNELS, PLAIN = "SPU kernels", "SPU in PyTorch"


def register() -> str:
    """Let the operators run these kernels on CUDA tensors; a second call changes nothing.

    Returns:
        What runs there, for people: the kernels, or, with the reason, PyTorch where NVRTC is missing.
    """
    try:
        nvrtc.load()
    except LuvcError as error:
        return f"{PLAIN} ({error})"
    _register()
    return KERNELS


@cache
def _register() -> None:
    for operator in OPERATORS:
        of_torch, ours = (
            getattr(operator.form(name), operator.function) for name in ("reference", "cuda")
        )
        of_torch.register_kernel("cuda", ours)
