"""Folders that change whole or not at all: checked first, written beside, swapped in."""

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ... import strict_json
from ...errors import LuvcError
from ...files import flush
from .folder import ENGINES, GRAPHS, MANIFEST, PROCESSOR, REPORT

PARTS = {MANIFEST, GRAPHS, PROCESSOR, REPORT, ENGINES}  # what a bundle folder may hold
DRAFTS = (f".{ENGINES}.luvc-", f".{MANIFEST}-")  # and what a killed luvc-build leaves in it


def check_place(target: Path) -> None:
    """Refuse a place that no folder can be swapped into, whatever is to be written there.

    Raises:
        LuvcError: the target is a file, the current folder, one above it or a mount point, or its
            parent is not writable.
    """
    place = target.resolve()
    if place.exists():
        if not place.is_dir():
            raise LuvcError(f"output {target} is a file; give the name of a folder")
        here = Path.cwd()
        if place == here or place in here.parents or place.is_mount():
            raise LuvcError(
                f"output {target} is the current folder, one above it or a mount point, which cannot "
                "be swapped; give the name of a folder inside"
            )
    existing = next(p for p in place.parents if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise LuvcError(f"output {target} cannot be written: no write access to {existing}")


def check_target(target: Path) -> None:
    """Refuse a target that a bundle cannot be written to, before any work is done.

    Raises:
        LuvcError: see `check_place`, or the target is a folder that is no bundle.
    """
    check_place(target)
    if target.is_dir() and any(target.iterdir()) and not _is_bundle(target):
        raise LuvcError(
            f"output {target} exists and is not a bundle; give another name or empty it"
        )


def _is_bundle(folder: Path) -> bool:
    """Whether a folder holds a manifest of ours, of any version, and nothing but a bundle's parts."""
    try:
        data = strict_json.read(folder / MANIFEST)
    except (OSError, ValueError):
        return False
    ours = isinstance(data, dict) and {"schema_version", "layouts", "files"} <= data.keys()
    names = (p.name for p in folder.iterdir())
    return ours and all(n in PARTS or n.startswith(DRAFTS) for n in names)


def check_space(folder: Path, needed: int) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        LuvcError: less than `needed` bytes are free below `folder`.
    """
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise LuvcError(
            f"the bundle needs {needed / 2**20:.0f} MiB, {existing} has {free / 2**20:.0f} MiB free; "
            "make room or choose another --output"
        )


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`, in which work for it is done.

    It is removed at the end; the folders of killed processes are removed by the next call.
    """
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    work = target.parent / f".{target.name}.luvc-{os.getpid()}-{secrets.token_hex(4)}"
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A folder `beside` the target that takes its name when the block succeeds.

    An earlier bundle stays whole and loadable until that moment, and when the block fails or the
    process is killed.

    Raises:
        LuvcError: the disk is full.
    """
    target = target.resolve()
    with beside(target) as work:
        try:
            yield work
            _sync(work)
            _swap(work, target)
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                raise LuvcError(
                    f"the disk is full while writing {target}; nothing was changed"
                ) from e
            raise


def remove_leftovers(target: Path) -> None:
    """Remove the temporary folders of killed processes beside `target`.

    A bundle that was put aside for a swap that never ended gets its name back.
    """
    pattern = re.compile(rf"\.{re.escape(target.name)}\.luvc-(\d+)-[0-9a-f]+(-old)?")
    for path in target.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match and not _alive(int(match[1])):
            if match[2] and not target.exists():
                os.rename(path, target)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync(folder: Path) -> None:
    """Flush the folder's files, so that a crash after the swap finds them whole."""
    for path in (*folder.rglob("*"), folder):
        flush(path)


def _swap(work: Path, target: Path) -> None:
    """Give `work` the target's name; an existing target is exchanged in one step.

    Where the system cannot exchange names there is a moment without a bundle; killed in it, the
    next call gives the earlier bundle its name back.
    """
    if not target.exists():
        os.rename(work, target)
    elif not _exchange(work, target):
        old = work.with_name(work.name + "-old")
        os.rename(target, old)
        try:
            os.rename(work, target)
        except OSError:
            os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two names atomically (Linux renameat2); False where the system cannot."""
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return rename(here, os.fsencode(a), here, os.fsencode(b), exchange) == 0
