"""The backends by name; what each is able to do: `Backend` and `EngineBuilder` in base.py."""

from importlib import import_module
from typing import TypeVar

from ...errors import LuvcError
from ..bundle.folder import Bundle
from .base import Backend, EngineBuilder

B = TypeVar("B", bound=Backend)
NAMES = ("tensorrt", "tensorrt-rtx", "ort")  # best first


def backend(name: str, bundle: Bundle | None = None) -> Backend:
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
    return _available(_import(name))


def engine_builder(name: str) -> EngineBuilder:
    """The backend of a name, which builds engines.

    Raises:
        LuvcError: it builds none, or its package is not installed; says what to install.
    """
    chosen = _import(name) if name in NAMES else None
    if not isinstance(chosen, EngineBuilder):
        raise LuvcError(f"--backend {name} builds no engines: give tensorrt or tensorrt-rtx")
    return _available(chosen)


def engine_note(bundle: Bundle, name: str) -> str:
    """What is known of engines that were just built: whether they can be run here at all."""
    reason = backend(name).usable(bundle)
    if reason is not None:
        return f"engines were built, not run: {reason}"
    return f"engines were built; compare them with PyTorch: luvc-validate {bundle.path} --backend {name}"


def _available(chosen: B) -> B:
    reason = chosen.available()
    if reason is not None:
        raise LuvcError(reason)
    return chosen


def _import(name: str) -> Backend:
    if name == "ort":
        return import_module(".ort.backend", __name__).ort
    return import_module(".trt.backend", __name__).BACKENDS[name]
