"""A compiled kernel on PyTorch's CUDA tensors.

The driver is called through ctypes, on PyTorch's context and current stream, so calls can be captured in
CUDA graphs once each kernel was loaded by a first call.
"""

import ctypes
from collections.abc import Sequence
from functools import cache

import torch

from ..dtypes import of_torch
from . import launch, nvrtc


class Kernel:
    """A compiled kernel that takes CUDA tensors.

    Args:
        plan: which kernel, and how it is compiled.

    Raises:
        LuvcError: NVRTC is not installed.
        RuntimeError: the driver refuses the kernel; with its error number.
    """

    def __init__(self, plan: launch.Launch):
        self.plan, self._driver = plan, ctypes.CDLL("libcuda.so.1")
        self._module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        ptx, entry = nvrtc.compile_launch(plan).encode(), plan.entry.encode()
        self._call("cuModuleLoadData", ctypes.byref(self._module), ptx)
        self._call("cuModuleGetFunction", ctypes.byref(self._function), self._module, entry)

    def __call__(
        self, call: launch.Call, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]
    ) -> None:
        """Launch on the current stream; all tensors are contiguous."""
        grid, scalars = call
        values = [ctypes.c_uint64(t.data_ptr()) for t in inputs]
        values += [ctypes.c_int(s) for s in scalars]
        values += [ctypes.c_uint64(t.data_ptr()) for t in outputs]
        addresses = (ctypes.c_void_p * len(values))(*[ctypes.addressof(v) for v in values])
        sizes = [ctypes.c_uint(n) for n in (*grid, self.plan.threads, 1, 1, 0)]
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        self._call("cuLaunchKernel", self._function, *sizes, stream, addresses, None)

    def _call(self, name: str, *arguments) -> None:
        status = getattr(self._driver, name)(*arguments)
        if status:
            raise RuntimeError(f"{self.plan.source}: {name} returned CUDA error {status}")


kernel = cache(Kernel)  # one process uses one device


def run(
    plan: launch.Launch,
    call: launch.Call,
    inputs: Sequence[torch.Tensor],
    outputs: Sequence[torch.Tensor],
) -> None:
    """Launch on the current stream; inputs need not be contiguous."""
    kernel(plan)(call, tuple(t.contiguous() for t in inputs), outputs)


def element(x: torch.Tensor) -> str:
    """Name of the element type, as in contract.py."""
    return of_torch(x.dtype).name
