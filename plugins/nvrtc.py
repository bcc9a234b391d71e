"""Compiles the kernels to PTX with NVRTC: no GPU, no driver and no CUDA toolkit is needed.

PTX of NVRTC 13.0 loads with every driver for CUDA 13; a newer NVRTC would write PTX that older
drivers refuse, and only at run time.
"""

import importlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import LuvcError
from .launch import Launch

# What lies in a kernels/ folder, by file name: no two are called alike.
_FOUND = Path(__file__).parent.glob("**/kernels/*.cu*")
SOURCES = {path.name: path for path in sorted(_FOUND, key=lambda path: path.name)}
INSTALL = "pip install 'nvidia-cuda-nvrtc==13.0.*' cuda-bindings"


def compile_launch(launch: Launch) -> str:
    """PTX of the kernel of `launch`; see compile_ptx."""
    return compile_ptx(launch.source, launch.options())


@lru_cache(maxsize=256)
def compile_ptx(source: str, options: tuple[str, ...]) -> str:
    """Compiles one kernel source to PTX text, once per process and set of options.

    Args:
        source: file name, a key of SOURCES.
        options: compiler options, Launch.options().

    Raises:
        LuvcError: when NVRTC is not installed.
        RuntimeError: when the kernel does not compile; a bug, with the compiler's log.
    """
    nvrtc = load()
    text = SOURCES[source].read_bytes()
    found = [path for path in SOURCES.values() if path.suffix == ".cuh"]
    headers, names = [path.read_bytes() for path in found], [path.name.encode() for path in found]
    program = _call(nvrtc.nvrtcCreateProgram, text, source.encode(), len(headers), headers, names)
    try:
        arguments = [option.encode() for option in options]
        status, *_ = nvrtc.nvrtcCompileProgram(program, len(arguments), arguments)
        if int(status):
            raise RuntimeError(f"{source} {' '.join(options)}:\n{_log(nvrtc, program)}")
        ptx = bytes(_call(nvrtc.nvrtcGetPTXSize, program))
        _call(nvrtc.nvrtcGetPTX, program, ptx)
    finally:
        _call(nvrtc.nvrtcDestroyProgram, program)
    return ptx.rstrip(b"\0").decode()


def load() -> Any:
    """The NVRTC bindings, with their library loaded.

    Raises:
        LuvcError: they are not usable here.
    """
    try:
        nvrtc = importlib.import_module("cuda.bindings.nvrtc")
        _call(nvrtc.nvrtcVersion)
    except (ImportError, OSError, RuntimeError) as error:
        # ImportError without the bindings, RuntimeError and others without the library itself.
        raise LuvcError(
            f"compiling the kernels needs NVRTC, which is not usable here ({error}); run: {INSTALL}"
        ) from error
    return nvrtc


def check_version() -> None:
    """Refuse what would compile to PTX that the driver of this machine does not load.

    Raises:
        LuvcError: NVRTC is not usable here, or newer than the driver.
    """
    _, major, minor = load().nvrtcVersion()
    try:
        runtime = importlib.import_module("cuda.bindings.runtime")
        status, driver = runtime.cudaDriverGetVersion()
    except (ImportError, OSError, RuntimeError):
        return
    if status.value or not driver:  # no driver: nothing to compare with
        return
    if 1000 * major + 10 * minor > driver:
        raise LuvcError(
            f"NVRTC {major}.{minor} writes kernels that the driver of this machine, for CUDA "
            f"{driver // 1000}.{driver % 1000 // 10}, does not load; update the driver, or run: {INSTALL}"
        )


def _call(function, *arguments) -> Any:
    """Calls NVRTC; returns the value after the status, if there is one."""
    status, *values = function(*arguments)
    if int(status):
        raise RuntimeError(f"{function.__name__} returned {status!r}")
    return values[0] if values else None


def _log(nvrtc, program) -> str:
    log = bytes(_call(nvrtc.nvrtcGetProgramLogSize, program))
    _call(nvrtc.nvrtcGetProgramLog, program, log)
    return log.rstrip(b"\0").decode(errors="replace")
