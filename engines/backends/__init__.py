"""Backends: the same verbs in each file, `available()`, `build()` and a `Runner`."""

from importlib import import_module
from types import ModuleType

from ...errors import LuvcError

NAMES = ("ort",)


def backend(name: str) -> ModuleType:
    """The backend module of a name; "auto" picks the best that is importable.

    Raises:
        LuvcError: unknown name, or its package is not installed; says what to install.
    """
    if name == "auto":
        modules = [import_module(f".{n}", __name__) for n in NAMES]
        for module in modules:
            if module.available() is None:
                return module
        raise LuvcError(modules[-1].available())
    if name not in NAMES:
        raise LuvcError(f"backend {name!r} is not one of auto, {', '.join(NAMES)}")
    module = import_module(f".{name}", __name__)
    reason = module.available()
    if reason is not None:
        raise LuvcError(reason)
    return module
