"""The few CUDA calls a runner needs, on one device and one stream.

What the user can mend, no GPU or no memory, becomes a LuvcError; other failures are RuntimeErrors.
"""

import importlib
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from ....errors import LuvcError

INSTALL = "pip install 'cuda-bindings>=13'"


class Cuda:
    """The current CUDA device and a stream of its own, through cuda-bindings.

    Attributes:
        name: of the GPU.
        arch: its compute capability, such as "sm90".
        stream: handle of the stream everything runs on.

    Raises:
        LuvcError: cuda-bindings is not installed, or there is no driver or GPU, or none to be had.
    """

    def __init__(self):
        try:
            self._rt = importlib.import_module("cuda.bindings.runtime")
        except (ImportError, OSError) as error:
            raise LuvcError(f"the GPU cannot be used without cuda-bindings: {INSTALL}") from error
        try:
            self._find_device()
            flag = self._rt.cudaStreamNonBlocking
            self.stream = int(self._call("cudaStreamCreateWithFlags", flag))
            self._give_back = weakref.finalize(self, self._rt.cudaStreamDestroy, self.stream)
        except RuntimeError as error:  # the first call that needs memory on the device
            raise LuvcError(
                f"the GPU cannot be used ({error}): end the processes that fill it or hold it alone, or "
                "use --backend ort"
            ) from error

    def _find_device(self) -> None:
        status, count = self._rt.cudaGetDeviceCount()
        if status != self._rt.cudaError_t.cudaSuccess or not count:
            reason = "no device" if not status.value else self._text(status)
            raise LuvcError(
                f"no NVIDIA GPU can be used here ({reason}): run on a machine with a GPU and a "
                "driver for CUDA 13, or use --backend ort"
            )
        properties = self._call("cudaGetDeviceProperties", self._call("cudaGetDevice"))
        self.name = properties.name.decode().rstrip("\0")
        self.arch = f"sm{properties.major}{properties.minor}"

    def memory(self) -> tuple[int, int]:
        """Bytes of device memory: free, in all."""
        return self._call("cudaMemGetInfo")

    def allocate(self, size: int) -> int:
        """Address of `size` new bytes of device memory."""
        return int(self._call("cudaMalloc", size))

    def release(self, address: int) -> None:
        """Give memory back; harmless while the process ends."""
        self._rt.cudaFree(address)

    def close(self) -> None:
        """Give the stream back."""
        self._give_back()

    def clear(self, address: int, size: int) -> None:
        """Zero memory."""
        self._call("cudaMemsetAsync", address, 0, size, self.stream)

    def upload(self, address: int, array: np.ndarray) -> None:
        """Copy a contiguous array to the device; the array may be freed at once."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self.stream)

    def download(self, array: np.ndarray, address: int) -> None:
        """Copy to a contiguous array; complete after `synchronise`."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self.stream)

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy device memory to device memory that does not overlap it."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call("cudaMemcpyAsync", target, source, size, kind, self.stream)

    def synchronise(self) -> None:
        """Wait for the stream."""
        self._call("cudaStreamSynchronize", self.stream)

    def capture(self, work: Callable[[], None]) -> "Recorded":
        """Record what `work` enqueues -> a graph for `launch`."""
        mode = self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self.stream, mode)
        try:
            work()
        finally:  # the stream must leave the capture mode even when work failed
            status, graph = self._rt.cudaStreamEndCapture(self.stream)
        self._check("cudaStreamEndCapture", status)
        recorded = Recorded(self._rt, self._call("cudaGraphInstantiate", graph, 0))
        self._call("cudaGraphDestroy", graph)
        return recorded

    def launch(self, graph: "Recorded") -> None:
        """Enqueue a recorded graph."""
        self._call("cudaGraphLaunch", graph.handle, self.stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *values = getattr(self._rt, name)(*arguments)
        self._check(name, status)
        return values[0] if len(values) == 1 else tuple(values)

    def _check(self, name: str, status: Any) -> None:
        if status != self._rt.cudaError_t.cudaSuccess:
            raise RuntimeError(f"{name}: {self._text(status)}")

    def _text(self, status: Any) -> str:
        return self._rt.cudaGetErrorString(status)[1].decode()


class Recorded:
    """A CUDA graph, destroyed with its owner."""

    def __init__(self, runtime: Any, handle: Any):
        self.handle = handle
        weakref.finalize(self, runtime.cudaGraphExecDestroy, handle)


class Memory:
    """Device memory that is given back by `close`, or with its owner.

    Args:
        cuda: the device.
        size: in bytes.
        purpose: what for, for the message.
        mend: what to do when it does not fit.

    Raises:
        LuvcError: the device is short of memory; says how much is needed and free.
    """

    def __init__(self, cuda: Any, size: int, purpose: str, mend: str):
        check_memory(cuda, size, purpose, mend)
        self.size = size
        try:
            self.address = cuda.allocate(max(size, 1))
        except RuntimeError as error:  # what is free may lie in pieces, or be taken meanwhile
            raise LuvcError(
                f"{purpose} need {size / 2**20:.0f} MiB of device memory ({error}): {mend}"
            ) from error
        self._give_back = weakref.finalize(self, cuda.release, self.address)

    def close(self) -> None:
        """Give the memory back; harmless when done twice."""
        self._give_back()


def check_memory(cuda: Any, size: int, purpose: str, mend: str) -> None:
    """Refuse what the device has no room for.

    Raises:
        LuvcError: says how much is needed and free.
    """
    free, total = cuda.memory()
    if size > free:
        raise LuvcError(
            f"{purpose} need {size / 2**20:.0f} MiB of device memory, {free / 2**20:.0f} of "
            f"{total / 2**20:.0f} MiB are free: {mend}"
        )


class Buffers:
    """Named device memory that grows when more is asked for.

    Args:
        cuda: the device.
    """

    def __init__(self, cuda: Any):
        self.cuda = cuda
        self._memory: dict[Any, Memory] = {}

    def get(self, name: Any, size: int) -> int:
        """Address of at least `size` bytes that keep their place until a larger size is asked for."""
        held = self._memory.get(name)
        if held is None or held.size < size:
            self._memory.pop(name, None)  # freed first: both together may not fit
            mend = "free memory on the device or use a smaller batch"
            held = self._memory[name] = Memory(self.cuda, size, "inputs and outputs", mend)
        return held.address

    def close(self) -> None:
        """Give all of it back."""
        for memory in self._memory.values():
            memory.close()
        self._memory.clear()
