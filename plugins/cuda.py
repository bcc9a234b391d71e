"""The SPU operators on PyTorch's CUDA tensors: the kernels that TensorRT runs, without TensorRT.

`register()` makes them the CUDA form of the operators in reference.py. The driver is called through
ctypes, on PyTorch's context and current stream, so calls can be captured in CUDA graphs once each kernel
was loaded by a first call. Letters: contract.py.
"""

import ctypes
from collections.abc import Sequence
from functools import cache

import torch

from ..errors import LuvcError
from . import nvrtc
from .scores.spectrum import launch, reference

KERNELS, PLAIN = "SPU kernels", "SPU in PyTorch"


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


def score(signal, visual_index, twiddle, cutoff: int, groups: int) -> torch.Tensor:
    """`reference.spectrum_score`, in C partial sums."""
    (B, S, D), V = signal.shape, visual_index.shape[1]
    plan = launch.score_launch(V, groups, D, cutoff, _name(signal))
    energies = signal.new_empty((B, plan.chunks, V), dtype=torch.float32)
    inputs = _dense(signal, visual_index, twiddle)
    kernel(plan)(launch.score_call(plan, B, S, D, cutoff), inputs, (energies,))
    return energies


def select(energies, visual_index, positions, keep: int, groups: int):
    """`reference.spectrum_select`."""
    (B, V), S = visual_index.shape, positions.shape[1]
    plan = launch.select_launch(V, groups, keep)
    shapes = (B, S - V + keep), (B, keep), (B, keep)
    found = tuple(visual_index.new_empty(shape) for shape in shapes)
    call = launch.select_call(plan, B, S, energies.shape[1], keep)
    kernel(plan)(call, _dense(energies, visual_index, positions), found)
    return found


def gather(hidden, positions, keep_index) -> tuple[torch.Tensor, torch.Tensor]:
    """`reference.gather_tokens`."""
    (B, S, D), (P, rows) = hidden.shape, (positions.shape[2], keep_index.shape[1])
    found = hidden.new_empty((B, rows, D)), positions.new_empty((B, rows, P))
    call = launch.gather_call(D, _name(hidden), B, S, rows, P)
    plan = launch.gather_launch(D, _name(hidden))
    kernel(plan)(call, _dense(hidden, positions, keep_index), found)
    return found


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
    reference.spectrum_score.register_kernel("cuda", score)
    reference.spectrum_select.register_kernel("cuda", select)
    reference.gather_tokens.register_kernel("cuda", gather)


def _name(x: torch.Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _dense(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(t.contiguous() for t in tensors)
