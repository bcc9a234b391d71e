"""Versions of the libraries that shape a bundle or a measurement."""

import platform
from importlib.metadata import PackageNotFoundError, version

from . import __version__

LIBRARIES = (
    "torch",
    "transformers",
    "onnx",
    "onnxscript",
    "onnx_ir",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx",
    "numpy",
)


def versions() -> dict[str, str]:
    """Those that are installed, with Python's and ours."""
    found = {"luvc-export": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
