"""Files written whole or not at all."""

import json
import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(text)
    os.replace(draft, path)


def write_json(path: Path, data: object) -> None:
    """The same with JSON."""
    write_text(path, json.dumps(data, indent=1) + "\n")
