"""TensorRT and TensorRT-RTX as backends: the same verbs over two libraries.

TensorRT builds and runs on the GPU of this machine, and the SPU operators become our plugins.
TensorRT-RTX builds without a GPU, runs on RTX GPUs, and the SPU runs its function bodies.
"""

from ...bundle.folder import Bundle
from ..base import BuildOptions, Built, EngineBuilder, Progress, silent
from . import build, engine_choice
from .cuda import Cuda
from .library import TENSORRT, TENSORRT_RTX, Library
from .plugins import register_plugins
from .runner import TrtRunner
from .session import Sessions


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

    def runner(self, bundle: Bundle, threads: int = 0) -> TrtRunner:
        """A runner on the GPU of this machine; `threads` has no meaning there.

        Raises:
            LuvcError: no GPU, no engine for it, or too little device memory.
        """
        del threads
        library, cuda = self.library, Cuda()
        engine = engine_choice.pick_engine(bundle, library, library.version, cuda.arch)
        if engine.plugins == "library":
            register_plugins("library", None)
        sessions = Sessions(library, cuda, bundle.path / engine.folder)
        description = f"{library.title} {engine.version} on {cuda.name} ({cuda.arch})"
        return TrtRunner(bundle, engine, cuda, sessions, description)

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
