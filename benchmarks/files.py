"""Files written whole or not at all, and JSON that may not be there yet."""

import json
from pathlib import Path
from typing import Any

from luvc.files import whole


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with whole(path) as draft:
        draft.write_text(text)


def write_json(path: Path, data: object) -> None:
    """The same with JSON."""
    write_text(path, json.dumps(data, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is none."""
    return json.loads(path.read_text()) if path.is_file() else None
