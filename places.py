"""Places that files and folders can be written to: looked at before the work, and said when writing fails."""

import errno
import os
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import LuvcError, brief, is_line, os_error, printable

ROOM = 60
"""Bytes that names beside a place, of its drafts and reports, have more than its own."""
LONGEST = 4096 - 300
"""Bytes of a path on Linux, with room for what a bundle's folders hold."""
NO_ROOM = {
    errno.ENOSPC: "the disk is full; make room",
    errno.EDQUOT: "the disk quota is used up; make room",
    errno.EFBIG: "a file is larger than `ulimit -f` or the file system allows; raise that",
    errno.EIO: "the disk fails",
}
"""What ends any writing, whatever it is of."""
REASONS = NO_ROOM | {
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no write access",
    errno.EPERM: "no write access",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "links lead in a circle",
    errno.ENOTDIR: "a file is in the way of a folder",
    errno.EEXIST: "a file or link is in the way of a folder",
    errno.EISDIR: "it is a folder",
}


@contextmanager
def writing(path: Path, reasons: Container[int] = REASONS) -> Iterator[None]:
    """Say in one line why `path` could not be written.

    Args:
        path: what is being written, under whatever name.
        reasons: numbers of errors that are about it; others may be of files that the block reads.

    Raises:
        LuvcError: instead of such an error.
    """
    try:
        yield
    except LuvcError:
        raise
    except Exception as e:
        number = os_error(e)
        if number is None or number not in reasons:
            raise
        why = REASONS.get(number, brief(e))
        raise LuvcError(f"{path} cannot be written: {why}, or name another place") from e


def check_path(path: Path, option: str) -> Path:
    """Refuse a path that nothing can be written to, whatever it is to be.

    Args:
        path: to write to; folders above it may be missing.
        option: of the command, for the message.

    Returns:
        The lowest folder above it that is there.

    Raises:
        LuvcError: control characters, a name or path too long, links in a circle, something that is no
            folder in the way, or no write access.
    """
    if not is_line(str(path)):
        raise LuvcError(f"{option} {str(path)!r} holds control characters; name another place")
    long = max((os.fsencode(part) for part in path.parts), key=len, default=b"")
    if len(long) > 255 - ROOM or len(os.fsencode(path.absolute())) > LONGEST:
        raise LuvcError(
            f"{option} {printable(str(path), 200)} is too long: a name may have {255 - ROOM} bytes, a "
            f"path {LONGEST}; name another place"
        )
    try:
        path.stat()
    except OSError as e:
        if e.errno == errno.ELOOP:
            raise LuvcError(f"{option} {path}: links lead in a circle; name another place") from e
    above = path.absolute().parents or [Path("/")]
    folder = next(p for p in above if os.path.lexists(p))
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise LuvcError(
            f"{option} {path} cannot be written: {folder} is no folder with write access; name another place"
        )
    return folder


def check_folder(path: Path, option: str) -> None:
    """Refuse a place that no folder can be made at or written to.

    Args:
        path: the folder; it and folders above it may be missing.
        option: of the command, for the message.

    Raises:
        LuvcError: it is no folder; or see `check_path`.
    """
    check_path(path, option)
    if path.exists() and not path.is_dir():
        raise LuvcError(f"{option} {path} is no folder: give another name")


def check_file(path: Path | None, option: str) -> None:
    """Refuse a place that no file can be written to, before the work whose outcome it is for.

    Args:
        path: the file; folders above it may be missing. None: no file is wanted.
        option: of the command, for the message.

    Raises:
        LuvcError: it is a folder or a device; or see `check_path`.
    """
    if path is None:
        return
    check_path(path, option)
    if os.path.exists(path) and not os.path.isfile(path):
        kind = "folder" if os.path.isdir(path) else "device"
        raise LuvcError(f"{option} {path} is a {kind}; give the name of a file")
