"""Backends, a file each with the same verbs: `available()`, `usable()`, `runner()`; for engines `build()`."""

from importlib import import_module
from types import ModuleType

from ...errors import LuvcError
from ..bundle import Bundle

NAMES = ("tensorrt", "tensorrt-rtx", "ort")  # best first


def backend(name: str, bundle: Bundle | None = None) -> ModuleType:
    """The backend module of a name.

    Args:
        name: one of NAMES, or "auto" for the best that can run the bundle on this machine.
        bundle: what is to be run; without it "auto" is ONNX Runtime, which runs every bundle.

    Raises:
        LuvcError: unknown name, or its package is not installed; says what to install.
    """
    if name == "auto":
        modules = [_module(n) for n in (NAMES if bundle else NAMES[-1:])]
        name = next((m.NAME for m in modules if bundle and m.usable(bundle) is None), NAMES[-1])
    if name not in NAMES:
        raise LuvcError(f"backend {name!r} is not one of auto, {', '.join(NAMES)}")
    module = _module(name)
    reason = module.available()
    if reason is not None:
        raise LuvcError(reason)
    return module


def engine_note(bundle: Bundle, name: str) -> str:
    """What is known of engines that were just built: whether they can be run here at all."""
    reason = backend(name).usable(bundle)
    if reason is not None:
        return f"engines were built, not run: {reason}"
    return f"engines were built; compare them with PyTorch: luvc-validate {bundle.path} --backend {name}"


def _module(name: str) -> ModuleType:
    return import_module(f".{name.replace('-', '_')}", __name__)
