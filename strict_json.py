"""JSON from outside: one reader, which refuses what would exhaust those who read on."""

import json
from pathlib import Path
from typing import Any

from .errors import LuvcError

DEEPEST = 100
"""Lists and objects inside each other; a config has about 5, a tool's schema about 15."""


def parse(text: str | bytes) -> Any:
    """What a JSON text says.

    Args:
        text: JSON; bytes are UTF-8.

    Raises:
        ValueError: it is not JSON or not UTF-8, or as a LuvcError: nested too deep.
    """
    try:
        data = json.loads(text if isinstance(text, str) else text.decode())
    except RecursionError:
        raise _too_deep() from None
    level = [data] if isinstance(data, (dict, list)) else []
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _nested(outer)]
    if level:
        raise _too_deep()
    return data


def read(path: Path) -> Any:
    """What a JSON file says.

    Raises:
        OSError: it cannot be read.
        ValueError: as `parse`.
    """
    return parse(path.read_bytes())


def _nested(data: dict | list) -> list[Any]:
    """The lists and objects that stand in one."""
    inside = data.values() if isinstance(data, dict) else data
    return [value for value in inside if isinstance(value, (dict, list))]


def _too_deep() -> LuvcError:
    return LuvcError(
        f"its lists and objects are nested more than {DEEPEST} deep; give flatter JSON"
    )
