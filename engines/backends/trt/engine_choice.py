"""Which engine of a bundle runs on this machine: the library's version and the GPU must match."""

from ....errors import LuvcError
from ...bundle.folder import Bundle
from ...bundle.manifest import Engine
from .cuda import Cuda
from .library import PORTABLE, Library

PORTABLE_FROM = 80  # compute capability 8.0


def pick_engine(bundle: Bundle, library: Library, version: str, arch: str) -> Engine:
    """The bundle's engine for a library version and GPU.

    Raises:
        LuvcError: none was built, or all are for other versions or GPUs; says which.
    """
    mend = f"run luvc-build {bundle.path} --backend {library.name} on this machine"
    mine = _engines(library, bundle)
    if not mine:
        raise LuvcError(f"{bundle.path} holds no {library.title} engines: {mend}")
    same = [e for e in mine if e.version == version]
    if not same:
        found = ", ".join(sorted({e.version for e in mine}))
        raise LuvcError(
            f"the engines were built with {library.title} {found}, this machine has {version}, and "
            f"engines run only with the version that built them: {mend}"
        )
    for engine in same:
        if _runs_on(engine.arch, arch):
            return engine
    found = ", ".join(e.arch for e in same)
    raise LuvcError(f"the engines are for {found}, the GPU of this machine is {arch}: {mend}")


def _engines(library: Library, bundle: Bundle) -> list[Engine]:
    return [e for e in bundle.manifest.engines if e.backend == library.name]


def _runs_on(engine: str, gpu: str) -> bool:
    if engine == PORTABLE:
        return int(gpu.removeprefix("sm")) >= PORTABLE_FROM
    return gpu in engine.split("+")


def why_not(library: Library, bundle: Bundle) -> str | None:
    """None, or why the bundle cannot be run with this library on this machine."""
    if not _engines(library, bundle):  # asked first: importing the library takes its time
        return f"{bundle.path} holds no {library.title} engines"
    problem = library.problem()
    if problem is not None:
        return problem
    try:
        pick_engine(bundle, library, library.version, Cuda().arch)
    except LuvcError as error:
        return str(error)
    return None
