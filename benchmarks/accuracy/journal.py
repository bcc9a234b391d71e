"""What a study under way has found, so that the same command goes on after it was stopped."""

import json
from collections.abc import Callable
from pathlib import Path

from luvc.files import whole


class Journal:
    """A file with a line for every result.

    Args:
        path: the file. Another run's is begun anew.
        head: all that results depend on but the study's own code: whoever changes that deletes the file.
    """

    def __init__(self, path: Path, head: dict):
        self.path = path
        head = json.loads(json.dumps(head))  # tuples become lists
        first, *rest = _lines(path) or [None]
        self.known = dict(rest) if first == head else {}
        with whole(path) as draft:  # without the half line of a run that was killed
            lines = [head, *self.known.items()]
            draft.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def once(self, name: str, make: Callable[[], dict]) -> dict:
        """The result of a name: as it was found before, or made and noted."""
        if name not in self.known:
            self.known[name] = make()
            with self.path.open("a") as file:
                file.write(json.dumps([name, self.known[name]]) + "\n")
        return self.known[name]

    def close(self) -> None:
        """Forget a run that is over."""
        self.path.unlink()


def _lines(path: Path) -> list:
    found = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found
