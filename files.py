"""Files written whole or not at all, and where those lie that one user's runs share."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import drafts
from .places import NO_ROOM, writing


@contextmanager
def whole(path: Path, lasting: bool = False) -> Iterator[Path]:
    """Give a draft beside `path` to write to; it takes the name in one step if all goes well.

    Drafts that killed processes left of this file are removed.

    Args:
        path: the file; folders above it are made.
        lasting: have the draft on the disk first, so that a crash after the step finds it whole.

    Raises:
        LuvcError: the folder cannot be made or written to, or the disk is full; an earlier file is as
            it was.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        drafts.remove_leftovers(path.parent, re.escape(path.name))
    with writing(path, NO_ROOM), drafts.held(path, drafts.new_file) as draft:
        yield draft
        with writing(path):
            if lasting:
                flush(draft)
            draft.replace(path)


def flush(path: Path) -> None:
    """Have the system write a file or folder to its disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def user_cache() -> Path:
    """Folder of what all runs of this user share: measured times, no results.

    Raises:
        RuntimeError: the user has no home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "luvc-export"
