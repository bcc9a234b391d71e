"""TensorRT and TensorRT-RTX as backends: the same verbs over two libraries.

TensorRT builds and runs on the GPU of this machine, and the SPU operators become our plugins.
TensorRT-RTX builds without a GPU, runs on RTX GPUs, and the SPU runs its function bodies.
"""

from ...bundle.folder import Bundle
from ..base import BuildOptions, Built, EngineBuilder, Progress, silent
from . import build, engine_choice, runner
from .library import TENSORRT, TENSORRT_RTX, Library


class TrtBackend(EngineBuilder):
    """One of the two libraries as a backend."""

    def __init__(self, library: Library):
        self.library = library

    @property
    def NAME(self) -> str:
        """As --backend takes it."""
        return self.library.name

    def available(self) -> str | None:
        """None, or why the library cannot be used and how to mend it."""
        return self.library.problem()

    def usable(self, bundle: Bundle) -> str | None:
        """None, or why this bundle cannot be run here."""
        return engine_choice.why_not(self.library, bundle)

    def runner(self, bundle: Bundle, threads: int = 0) -> runner.TrtRunner:
        """A runner for the bundle; `threads` has no meaning on a GPU."""
        del threads
        return runner.make_runner(self.library, bundle)

    def check_machine(self) -> None:
        """Refuse a machine that cannot build engines, before any work is done.

        Raises:
            LuvcError: TensorRT without a GPU or without NVRTC.
        """
        build.check_machine(self.library)

    def build(
        self, bundle: Bundle, options: BuildOptions | None = None, progress: Progress = silent
    ) -> tuple[Bundle, list[Built]]:
        """Build the bundle's engines; see build.build."""
        return build.build(self.library, bundle, options or BuildOptions(), progress)


tensorrt, tensorrt_rtx = TrtBackend(TENSORRT), TrtBackend(TENSORRT_RTX)
BACKENDS = {backend.NAME: backend for backend in (tensorrt, tensorrt_rtx)}
