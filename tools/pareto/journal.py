"""What was answered before, so that a run that was stopped goes on."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ... import strict_json
from ...errors import LuvcError

NAME = "answers.jsonl"


class Journal:
    """Answers by method and ratio, one line each behind a line that says what they are of.

    Args:
        folder: of the run.
        head: what the answers depend on.

    Raises:
        LuvcError: the folder holds answers of another run.
    """

    def __init__(self, folder: Path, head: dict):
        self.path = folder / NAME
        self.known: dict[str, list[str]] = {}
        head = json.loads(json.dumps(head))
        if not self.path.exists():
            self.path.write_text(json.dumps(head) + "\n")
            return
        self._drop_half_a_line()
        first, *rest = [data for _, data in strict_json.lines(self.path)] or [None]
        if first != head:
            raise LuvcError(
                f"{folder} holds the answers of another run (other model, data or options): give another "
                "--output, or remove it"
            )
        for line in rest:
            self.known[line["label"]] = line["texts"]

    def _drop_half_a_line(self) -> None:
        """What a killed run left of its last line."""
        written = self.path.read_bytes()
        if not written.endswith(b"\n"):
            os.truncate(self.path, written.rfind(b"\n") + 1)

    def keep(self, label: str, texts: Sequence[str]) -> None:
        """Add the answers of a method at a ratio."""
        if self.known.get(label) == list(texts):
            return
        self.known[label] = list(texts)
        with self.path.open("a") as file:
            file.write(json.dumps({"label": label, "texts": list(texts)}) + "\n")
