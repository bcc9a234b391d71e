"""One file a format, named by its quant_method in config.json; its `Reader` knows the tensors."""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from .....errors import LuvcError, shown
from ..format import INSTEAD, Format

FORMATS = tuple(sorted(module.name.replace("_", "-") for module in iter_modules(__path__)))


def format_of(config: Mapping[str, Any], source: str) -> Format:
    """The reader that a quantization_config asks for.

    Args:
        config: the quantization_config.
        source: what messages call the checkpoint.

    Raises:
        LuvcError: its method is not known, lists those that are; or something in it is not read.
    """
    method = config.get("quant_method")
    if method is None and ("load_in_4bit" in config or "load_in_8bit" in config):
        method = "bitsandbytes"  # before there was a quant_method
    name = str(method).replace("_", "-")
    if name not in FORMATS:
        raise LuvcError(
            f"{source} is quantised ({shown(method)}), which is not read; what is: {', '.join(FORMATS)}: "
            f"{INSTEAD}"
        )
    return import_module(f".{name.replace('-', '_')}", __name__).Reader(config, source)
