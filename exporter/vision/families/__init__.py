"""One file a family, named by its Hugging Face model_type; its `Adapter` says what is peculiar to it."""

from importlib import import_module
from pkgutil import iter_modules

from ....errors import LuvcError
from ..adapter import VisionAdapter

FAMILIES = tuple(sorted(module.name for module in iter_modules(__path__)))


def video_families() -> list[str]:
    """Those whose processor takes videos."""
    return [name for name in FAMILIES if adapter_class(name).video]


def adapter_class(model_type: str) -> type[VisionAdapter]:
    """The adapter of a family.

    Raises:
        LuvcError: the family is not supported; lists those that are.
    """
    if model_type not in FAMILIES:
        raise LuvcError(
            f"model type {model_type!r} is not a supported vision-language family: "
            f"{', '.join(FAMILIES)}"
        )
    return import_module(f".{model_type}", __name__).Adapter
