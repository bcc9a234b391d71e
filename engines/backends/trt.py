"""TensorRT and TensorRT-RTX as backends: the same verbs over two libraries.

TensorRT builds and runs on the GPU of this machine, and the SPU operators become our plugins.
TensorRT-RTX builds without a GPU, runs on RTX GPUs, and the SPU runs its function bodies.
"""

from ..bundle import Bundle
from . import trt_build, trt_pick, trt_run
from .trt_library import TENSORRT, TENSORRT_RTX, Library
from .trt_progress import Progress, silent


class TrtBackend:
    """One of the two libraries as a backend."""

    def __init__(self, library: Library):
        self.library, self.NAME = library, library.name

    def available(self) -> str | None:
        """None, or why this backend cannot be used and how to mend it."""
        return self.library.problem()

    def check_machine(self) -> None:
        """Refuse a machine that cannot build engines, before any work is done.

        Raises:
            LuvcError: TensorRT without a GPU or without NVRTC.
        """
        trt_build.check_machine(self.library)

    def usable(self, bundle: Bundle) -> str | None:
        """None, or why this bundle cannot be run here."""
        return trt_pick.why_not(self.library, bundle)

    def build(
        self,
        bundle: Bundle,
        options: trt_build.BuildOptions | None = None,
        progress: Progress = silent,
    ) -> tuple[Bundle, list[trt_build.Built]]:
        """Build the bundle's engines; see trt_build.build."""
        options = options or trt_build.BuildOptions()
        return trt_build.build(self.library, bundle, options, progress)

    def runner(self, bundle: Bundle, threads: int = 0) -> trt_run.TrtRunner:
        """A runner for the bundle; `threads` has no meaning on a GPU."""
        del threads
        return trt_run.make_runner(self.library, bundle)


tensorrt, tensorrt_rtx = TrtBackend(TENSORRT), TrtBackend(TENSORRT_RTX)
BACKENDS = {backend.NAME: backend for backend in (tensorrt, tensorrt_rtx)}
