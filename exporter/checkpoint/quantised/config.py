"""What a checkpoint's config.json says of its quantisation."""

from collections.abc import Mapping
from typing import Any

from ....errors import LuvcError, shown
from .format import INSTEAD, Format
from .formats import format_of

NAMES = ("quantization_config", "compression_config")
"""The second is of older versions of compressed-tensors."""


def format_in(raw: Mapping[str, Any], source: str) -> Format | None:
    """The reader of a checkpoint's weights; None where they are plain.

    Args:
        raw: config.json.
        source: what messages call the checkpoint.

    Raises:
        LuvcError: they are quantised in a way that is not read, or in several.
    """
    found = [value for value in _all(raw) if value]
    if not found:
        return None
    if any(value != found[0] for value in found):
        raise LuvcError(
            f"{source} has {len(found)} quantization_configs in config.json that differ; one is read: "
            f"{INSTEAD}"
        )
    if not isinstance(found[0], Mapping):
        raise LuvcError(
            f"{source}: quantization_config is {shown(found[0])} in config.json: mend it or fetch it again"
        )
    return format_of(found[0], source)


def _all(raw: Mapping[str, Any]) -> list[Any]:
    """Every quantisation that a config or one in it names."""
    found = [raw[name] for name in NAMES if name in raw]
    inner = (value for name, value in raw.items() if name not in NAMES)
    return found + [entry for value in inner if isinstance(value, Mapping) for entry in _all(value)]


def without_quantisation(config: Any) -> Any:
    """A Hugging Face config whose weights are plain, changed in place."""
    for name in NAMES:
        if getattr(config, name, None) is not None:
            delattr(config, name)
    for name in ("text_config", "vision_config"):
        if getattr(config, name, None) is not None:
            without_quantisation(getattr(config, name))
    return config
