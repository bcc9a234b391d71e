"""Drafts: files and folders that are written under a hidden name, and held while their process lives.

A lock says whether the process of a draft still lives. Its number would not: containers that share a
volume number their processes each for itself.
"""

import fcntl
import hashlib
import os
import platform
import re
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from .errors import LuvcError
from .places import writing

ASIDE = "-old"
"""Ends the name of a folder that another one is to replace."""
ONE_KERNEL = {"apfs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"}
"""File systems that one running kernel mounts at a time, so that it knows every lock on them."""


@contextmanager
def held(place: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """A new draft beside a place, for a block that gives it a name; what still lies there is removed.

    Args:
        place: what the draft is to become.
        make: makes a file or folder, and fails where there is something already.

    Raises:
        LuvcError: none can be made there.
    """
    handle = None
    while handle is None:  # a moment after it was made it may be taken for a leftover
        draft = place.with_name(f".{place.name}.luvc-{_kernel()}-{secrets.token_hex(8)}")
        try:
            with writing(place):
                make(draft)
                handle = _lock(draft, give_way=False)
        except LuvcError:
            raise
        except BaseException:  # told to end, as by SIGTERM
            remove(draft)
            raise
    try:
        yield draft
    finally:
        remove(draft)
        os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file or folder that is to become a draft."""
    handle = _lock(path, give_way=False)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def new_file(path: Path) -> None:
    """Make an empty file; a link of that name, which may lie in wait in a shared folder, is refused."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))


def remove(path: Path) -> None:
    """Remove a draft, file or folder, as far as that goes."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path, of: str) -> None:
    """Remove `leftovers`."""
    for path in leftovers(folder, of):
        remove(path)


def is_draft(name: str, of: str) -> bool:
    """Whether a file's name is that of a draft.

    Args:
        name: of the file.
        of: regular expression for the name that the draft stands for.
    """
    return (
        re.fullmatch(rf"\.({of})\.luvc-([0-9a-f]{{8}})-[0-9a-f]{{16}}({ASIDE})?", name) is not None
    )


def leftovers(folder: Path, of: str) -> Iterator[Path]:
    """Drafts whose processes have ended, each held while it is looked at.

    What cannot be decided (drafts of another machine on a network volume) is left, with a warning.

    Args:
        folder: where they lie.
        of: regular expression for the names that they stand for.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError:  # may be written to, and not listed
        return
    for path in (folder / name for name in names if is_draft(name, of)):
        try:
            handle = _lock(path, give_way=True)
        except OSError:
            handle = -1
        if handle is None:
            continue
        try:
            if handle >= 0 and _knows_locks(path):
                yield path
            else:
                warnings.warn(
                    f"{path} is left, another machine or user may be writing it: remove it if none is",
                    stacklevel=3,
                )
        finally:
            if handle >= 0:
                os.close(handle)


def _lock(path: Path, give_way: bool) -> int | None:
    """An open file or folder that other processes find locked until it is closed, or this one ends.

    Args:
        path: of it.
        give_way: to who holds it, and where there are no locks; otherwise it is waited for, and what a
            file system without locks holds is left alone by `leftovers`.

    Returns:
        None where another process holds it or has removed it.

    Raises:
        OSError: it is a link, or not ours.
    """
    mode = os.O_RDONLY if path.is_dir() else os.O_RDWR  # network file systems ask for it
    try:
        handle = os.open(path, mode | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if give_way else 0))
    except OSError as e:
        if give_way:
            os.close(handle)
            if isinstance(e, BlockingIOError):
                return None
            raise
    if _is(handle, path):
        return handle
    os.close(handle)
    return None


def _is(handle: int, path: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _knows_locks(path: Path) -> bool:
    """Whether this machine sees the lock of whoever made a draft."""
    return f".luvc-{_kernel()}-" in path.name or _file_system(path.absolute()) in ONE_KERNEL


def _file_system(path: Path) -> str:
    """Kind of the file system that a path lies on."""
    import psutil

    kinds = {p.mountpoint: p.fstype for p in psutil.disk_partitions(all=True)}
    return next((kinds[str(p)] for p in path.resolve().parents if str(p) in kinds), "")


@cache
def _kernel() -> str:
    """Eight digits that all containers of a machine share until it is started anew."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:  # not Linux
        text = platform.node()
    return hashlib.sha256(text.encode()).hexdigest()[:8]
