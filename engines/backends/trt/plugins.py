"""The SPU's plugins in this process: registered in one form, which TensorRT does not take back."""

import hashlib
import os
from pathlib import Path

from ....errors import LuvcError
from ....plugins import nvrtc, tensorrt_registry
from ...bundle.folder import sha256

PLUGIN_LIBRARY = "LUVC_PLUGIN_LIBRARY"  # environment: path of the C++ plugin library
_forms: set[str] = set()  # registered in this process, one at most


def register_plugins(form: str, path: Path | None) -> None:
    """Make the SPU plugins known to TensorRT.

    Args:
        form: "aot", "library", or "body", which registers nothing.
        path: the C++ library; default the one that PLUGIN_LIBRARY names.

    Raises:
        LuvcError: the library or NVRTC is missing, TensorRT or the driver is too old, or another
            form is registered, which TensorRT would use instead.
    """
    other = next(iter(_forms - {form}), None)
    if other is not None:
        raise LuvcError(
            f"this process registered the SPU plugins in the form {other!r}, and TensorRT would use "
            f"them for {form!r} too: use the form {form!r} in a new process"
        )
    if form == "body":
        return
    if form == "aot":
        nvrtc.check_version()
        tensorrt_registry.register()
    else:
        _load_library(path)
    _forms.add(form)


def _load_library(path: Path | None) -> None:
    given = path or os.environ.get(PLUGIN_LIBRARY)
    if given is None:
        raise LuvcError(
            f"the plugin form 'library' needs the C++ library: give --plugin-library or set "
            f"{PLUGIN_LIBRARY}"
        )
    if not tensorrt_registry.registered():
        tensorrt_registry.load_library(given)


def plugins_hash(form: str, path: Path | None) -> str:
    """Hash of the kernel sources or of the library, since both end up in what an engine does."""
    if form == "body":
        return ""
    if form == "library":
        return sha256(Path(path or os.environ[PLUGIN_LIBRARY]))
    return hashlib.sha256("".join(map(sha256, nvrtc.SOURCES.values())).encode()).hexdigest()
