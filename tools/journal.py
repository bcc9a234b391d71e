"""What a long run has found so far, so that one that was stopped goes on."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import strict_json
from ..errors import LuvcError
from ..files import whole


class Journal:
    """A file with a line that says what its results are of, then one [name, result] each.

    Args:
        path: the file.
        head: what the results depend on.
        anew: begin another run's file anew, instead of refusing it.

    Attributes:
        known: results by name.

    Raises:
        LuvcError: the file holds results of another run, or is damaged.
    """

    def __init__(self, path: Path, head: dict[str, Any], anew: bool = False):
        self.path = path
        self.known: dict[str, Any] = {}
        head = json.loads(json.dumps(head))  # tuples become lists
        first, *rest = self._lines(anew) or [None]
        if first == head:
            self.known = self._results(rest)
            return
        if first is not None and not anew:
            raise LuvcError(
                f"{path.parent} holds the results of another run (other model, data or options): give "
                "another --output, or remove it"
            )
        with whole(path) as draft:
            draft.write_text(json.dumps(head) + "\n")

    def _lines(self, anew: bool) -> list[Any]:
        """What is written, without the half line of a run that was killed."""
        if not self.path.exists():
            return []
        written = self.path.read_bytes()
        if not written.endswith(b"\n"):
            os.truncate(self.path, written.rfind(b"\n") + 1)
        try:
            return [data for _, data in strict_json.lines(self.path)]
        except LuvcError:
            if anew:
                return []
            raise

    def _results(self, lines: list[Any]) -> dict[str, Any]:
        try:
            return {str(name): value for name, value in lines}
        except (TypeError, ValueError) as e:
            raise LuvcError(
                f"{self.path} holds what this version does not write: remove it, or give another --output"
            ) from e

    def keep(self, name: str, value: Any) -> None:
        """Add a result."""
        self.keep_all({name: value})

    def keep_all(self, found: dict[str, Any]) -> None:
        """Add results; those that are known already are not written again."""
        new = {name: value for name, value in found.items() if name not in self.known}
        self.known |= new
        with self.path.open("a") as file:
            file.write("".join(json.dumps(line) + "\n" for line in new.items()))

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """The result of a name: as it was found before, or made and noted."""
        if name not in self.known:
            self.keep(name, make())
        return self.known[name]

    def close(self) -> None:
        """Forget a run that is over."""
        self.path.unlink()
