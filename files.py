"""Files written whole or not at all, and where those lie that one user's runs share."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import LuvcError


@contextmanager
def whole(path: Path, lasting: bool = False) -> Iterator[Path]:
    """Give a draft beside `path` to write to; it takes the name in one step if all goes well.

    Args:
        path: the file; folders above it are made.
        lasting: have the draft on the disk first, so that a crash after the step finds it whole.

    Raises:
        OSError: the folder cannot be made or written to; an earlier file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    # made here, with a name nobody can guess: in a shared folder a link of that name may lie in wait
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield draft
        if lasting:
            flush(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def is_draft(name: str, of: str) -> bool:
    """Whether a file's name is that of a draft of `whole` for the file `of`, left when it was killed."""
    return re.fullmatch(rf"\.{re.escape(of)}-[0-9a-f]+", name) is not None


def check_file(path: Path | None, option: str) -> None:
    """Refuse a place that `whole` cannot write a file to, before the work whose outcome it is for.

    Args:
        path: the file; folders above it may be missing. None: no file is wanted.
        option: of the command, for the message.

    Raises:
        LuvcError: it is a folder or a device, or the folder it would be in is not writable.
    """
    if path is None:
        return
    if os.path.exists(path) and not os.path.isfile(path):
        kind = "folder" if os.path.isdir(path) else "device"
        raise LuvcError(f"{option} {path} is a {kind}; give the name of a file")
    folder = next(p for p in path.absolute().parents if os.path.exists(p))
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise LuvcError(
            f"{option} {path} cannot be written: {folder} is no folder with write access; name another place"
        )


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
