"""TensorRT: builds and runs on the GPU of this machine; the SPU operators become our plugins."""

from ..bundle import Bundle
from . import trt_build, trt_pick, trt_run
from .trt_library import TENSORRT as LIBRARY
from .trt_progress import Progress, silent

NAME = LIBRARY.name


def available() -> str | None:
    """None, or why this backend cannot be used and how to mend it."""
    return LIBRARY.problem()


def check_machine() -> None:
    """Refuse a machine that cannot build engines, before any work is done.

    Raises:
        LuvcError: TensorRT without a GPU or without NVRTC.
    """
    trt_build.check_machine(LIBRARY)


def usable(bundle: Bundle) -> str | None:
    """None, or why this bundle cannot be run here."""
    return trt_pick.why_not(LIBRARY, bundle)


def build(
    bundle: Bundle,
    options: trt_build.BuildOptions | None = None,
    progress: Progress = silent,
) -> tuple[Bundle, list[trt_build.Built]]:
    """Build the bundle's engines; see trt_build.build."""
    return trt_build.build(LIBRARY, bundle, options or trt_build.BuildOptions(), progress)


def runner(bundle: Bundle, threads: int = 0) -> trt_run.TrtRunner:
    """A runner for the bundle; `threads` has no meaning on a GPU."""
    return trt_run.make_runner(LIBRARY, bundle)
