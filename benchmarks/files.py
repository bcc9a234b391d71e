"""Files written whole or not at all."""

import json
from pathlib import Path

from luvc.files import whole


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with whole(path) as draft:
        draft.write_text(text)


def write_json(path: Path, data: object) -> None:
    """The same with JSON."""
    write_text(path, json.dumps(data, indent=1) + "\n")
