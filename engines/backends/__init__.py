"""Backends with the same verbs: `available()`, `usable()`, `runner()`; for engines `build()`."""

from importlib import import_module
from typing import Any

from ...errors import LuvcError
from ..bundle.folder import Bundle

NAMES = ("tensorrt", "tensorrt-rtx", "ort")  # best first


def backend(name: str, bundle: Bundle | None = None) -> Any:
    """The backend of a name.

    Args:
        name: one of NAMES, or "auto" for the best that can run the bundle on this machine.
        bundle: what is to be run; without it "auto" is ONNX Runtime, which runs every bundle.

    Raises:
        LuvcError: unknown name, or its package is not installed; says what to install.
    """
    if name == "auto":
        found = [_import(n) for n in (NAMES if bundle else NAMES[-1:])]
        name = next((b.NAME for b in found if bundle and b.usable(bundle) is None), NAMES[-1])
    if name not in NAMES:
        raise LuvcError(f"backend {name!r} is not one of auto, {', '.join(NAMES)}")
    chosen = _import(name)
    reason = chosen.available()
    if reason is not None:
        raise LuvcError(reason)
    return chosen


def engine_note(bundle: Bundle, name: str) -> str:
    """What is known of engines that were just built: whether they can be run here at all."""
    reason = backend(name).usable(bundle)
    if reason is not None:
        return f"engines were built, not run: {reason}"
    return f"engines were built; compare them with PyTorch: luvc-validate {bundle.path} --backend {name}"


def _import(name: str) -> Any:
    if name == "ort":
        return import_module(".ort.runner", __name__)
    return import_module(".trt.backend", __name__).BACKENDS[name]
