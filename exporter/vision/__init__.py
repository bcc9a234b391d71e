"""Vision towers: one loop, one small adapter for each family, found by Hugging Face model_type."""

from ...errors import LuvcError
from .absolute import InternVLAdapter
from .core import VisionAdapter

ADAPTERS: dict[str, type[VisionAdapter]] = {"internvl": InternVLAdapter}


def adapter_class(model_type: str) -> type[VisionAdapter]:
    """The adapter of a family.

    Raises:
        LuvcError: the family is not supported; lists those that are.
    """
    if model_type not in ADAPTERS:
        known = ", ".join(sorted(ADAPTERS))
        raise LuvcError(
            f"model type {model_type!r} is not a supported vision-language family: {known}"
        )
    return ADAPTERS[model_type]
