"""One TensorRT engine on the device: its execution contexts, one for each profile.

This is the only place that calls the TensorRT runtime; runner.py decides what is run.
"""

import mmap
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from ....dtypes import TENSORRT
from ....errors import LuvcError
from .cuda import Cuda, check_memory
from .kernel_cache import CompiledKernels, cache_name
from .library import Library, make_log


class Sessions:
    """Opens the engines of a bundle.

    Args:
        library: TensorRT or TensorRT-RTX.
        cuda: the device.
        folder: where the plans lie; TensorRT-RTX keeps its compiled kernels there.
    """

    def __init__(self, library: Library, cuda: Cuda, folder: Path):
        self.library = library
        self.cuda = cuda
        self.folder = folder
        self.trt = library.load()
        self.log = make_log(self.trt)
        self._runtime: Any = self.trt.Runtime(self.log)  # None once closed
        self._kernels: CompiledKernels | None = None  # TensorRT-RTX's

    def __call__(self, plan: Path) -> "Session":
        """Load a plan.

        Raises:
            LuvcError: too little device memory, or the library does not take the plan.
        """
        mend = (
            "free memory on the device, or take a larger GPU, a smaller model or fewer image sizes: "
            "every layout in use has two engines with the language model's weights"
        )
        size = plan.stat().st_size
        check_memory(self.cuda, size, f"the weights of {plan.name}", mend)
        engine = self._deserialize(plan) if size else None
        if engine is None:
            raise LuvcError(
                f"{self.library.title} does not load {plan} ({self.log.last() or 'no reason given'}): "
                f"build it again on this machine with luvc-build --backend {self.library.name}"
            )
        return Session(self, engine)

    def _deserialize(self, plan: Path) -> Any:
        with plan.open("rb") as f:  # mapped: read whole, it would take as much memory again
            data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        return self._runtime.deserialize_cuda_engine(data)

    def context(self, engine: Any, profile: int) -> Any:
        """An execution context whose scratch memory the runner provides.

        Raises:
            LuvcError: the library cannot make one, for want of memory as a rule.
        """
        trt, user_managed = self.trt, self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.library.plugins:
            context = engine.create_execution_context(user_managed)
        else:
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(user_managed)
            config.set_runtime_cache(self._jit_cache(config))
            if profile == 0 and engine.num_optimization_profiles > 1:  # decoding: few shapes
                strategies = trt.DynamicShapesKernelSpecializationStrategy
                config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
            context = engine.create_execution_context(config)
        if context is None:
            raise LuvcError(
                f"{self.library.title} cannot prepare an engine to run "
                f"({self.log.last() or 'no reason given'}): free memory on the device, or build with a "
                f"smaller batch: luvc-build --backend {self.library.name} --batch"
            )
        context.set_optimization_profile_async(profile, self.cuda.stream)
        self.cuda.synchronise()
        return context

    def _jit_cache(self, config: Any) -> Any:
        """Kernels compiled by earlier runs; the library refuses those of another GPU or driver."""
        if self._kernels is None:
            path = self.folder / cache_name(self.cuda)
            self._kernels = CompiledKernels(config.create_runtime_cache(), path)
            # when the process ends, at the latest
            self._save_last = weakref.finalize(self, self._kernels.close)
        return self._kernels.cache

    def compiles(self) -> None:
        """Note that the next run compiles kernels."""
        if self._kernels is not None:
            self._kernels.grow()

    def keep(self) -> None:
        """Save kernels that were compiled since the last time, at most once a minute."""
        if self._kernels is not None:
            self._kernels.keep()

    def save(self) -> None:
        """Keep compiled kernels for the next process; a read-only bundle goes without."""
        if self._kernels is not None:
            self._kernels.save()

    def close(self) -> None:
        """Keep what was compiled, and let go of the library's runtime; sessions are closed before."""
        if self._kernels is not None:
            self._save_last()
        self._kernels = self._runtime = None
        self.cuda.close()


class Session:
    """One engine.

    Args:
        sessions: who opened it.
        engine: the deserialized engine.

    Attributes:
        workspace: bytes of scratch memory a run needs.
        epochs: for each profile, how often its shapes changed; CUDA graphs are good for one epoch.
    """

    def __init__(self, sessions: Sessions, engine: Any):
        self._sessions = sessions
        self._engine: Any = engine  # None once closed
        profiles = range(engine.num_optimization_profiles)
        self._contexts = [sessions.context(engine, p) for p in profiles]
        self._shapes: list[dict[str, tuple[int, ...]]] = [{} for _ in profiles]
        self._seen: set[tuple] = set()  # profiles and shapes whose kernels are compiled
        self.workspace = int(engine.device_memory_size_v2)
        self.epochs = [0 for _ in profiles]

    def has(self, name: str) -> bool:
        """Whether it is an input or output."""
        count = self._engine.num_io_tensors
        return name in map(self._engine.get_tensor_name, range(count))

    def dtype(self, name: str) -> np.dtype:
        """Element type of an input or output."""
        return TENSORRT[self._engine.get_tensor_dtype(name).name].numpy

    def width(self, name: str) -> int:
        """Last dimension of an input or output, the same in all its shapes."""
        return int(tuple(self._engine.get_tensor_shape(name))[-1])

    def in_place(self, output: str, source: str) -> bool:
        """Whether an output takes the memory of an input."""
        return self._engine.get_aliased_input_tensor(output) == source

    def set_shapes(self, profile: int, shapes: dict[str, tuple[int, ...]]) -> None:
        """Choose the shapes of the next runs.

        Raises:
            RuntimeError: a shape is outside the profile.
        """
        if shapes == self._shapes[profile]:
            return
        self.epochs[profile] += 1
        for name, shape in shapes.items():
            if not self._contexts[profile].set_input_shape(name, shape):
                raise RuntimeError(f"{name}: {shape} is outside profile {profile}")
        self._shapes[profile] = dict(shapes)
        use = profile, tuple(shapes.items())
        if use not in self._seen:
            self._seen.add(use)
            self._sessions.compiles()

    def shape(self, profile: int, name: str) -> tuple[int, ...]:
        """Shape of an output for the chosen input shapes."""
        return tuple(self._contexts[profile].get_tensor_shape(name))

    def enqueue(self, profile: int, addresses: dict[str, int], workspace: int, size: int) -> None:
        """Run on the stream.

        Args:
            profile: which.
            addresses: of every input and output.
            workspace: address of scratch memory.
            size: bytes of it.

        Raises:
            RuntimeError: TensorRT refuses; with its own words.
        """
        context = self._contexts[profile]
        for name, address in addresses.items():
            context.set_tensor_address(name, address)
        context.set_device_memory(workspace, size)
        if not context.execute_async_v3(self._sessions.cuda.stream):
            raise RuntimeError(f"execution failed: {self._sessions.log.last()}")

    def capturable(self, profile: int) -> bool:
        """Whether a run may be recorded as a CUDA graph; TensorRT-RTX compiles kernels first."""
        context = self._contexts[profile]
        ask = getattr(context, "is_stream_capturable", None)
        return ask is None or bool(ask(self._sessions.cuda.stream))

    def close(self) -> None:
        """Give the contexts and the engine, with its weights, back."""
        self._contexts.clear()
        self._engine = None
