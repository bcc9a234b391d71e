"""Folders that change whole or not at all: checked first, written beside, swapped in."""

import contextlib
import ctypes
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from ... import strict_json
from ...drafts import ASIDE, held, is_draft, leftovers, locked, remove
from ...errors import LuvcError
from ...files import flush
from ...places import NO_ROOM, check_path, writing
from .contents import ENGINES, MANIFEST, strangers
from .readme import README, is_generated


def check_place(target: Path) -> None:
    """Refuse a place that no folder can be swapped into, whatever is to be written there.

    Raises:
        LuvcError: the target is a file, the current folder, one above it or a mount point, or nothing
            can be written there.
    """
    check_path(target, "output")
    place = target.resolve()
    check_path(place, "output")  # where a link leads
    if place.exists():
        if not place.is_dir():
            raise LuvcError(f"output {target} is a file; give the name of a folder")
        here = Path.cwd()
        if place == here or place in here.parents or place.is_mount():
            raise LuvcError(
                f"output {target} is the current folder, one above it or a mount point, which cannot "
                "be swapped; give the name of a folder inside"
            )


def check_target(target: Path) -> None:
    """Refuse a target that a bundle cannot be written to, before any work is done.

    Raises:
        LuvcError: see `check_place`, or the target is a folder that holds anything but a bundle.
    """
    check_place(target)
    if not target.is_dir() or not any(target.iterdir()):
        return
    with writing(target):
        foreign = foreign_file(target)
    if foreign is not None:
        raise LuvcError(
            f"output {target} exists and is not a bundle alone: it holds {foreign}, which no export wrote; "
            "give another name, or move that elsewhere"
        )


def foreign_file(bundle: Path) -> str | None:
    """Name of something in a folder that luvc did not write there; None for a bundle.

    Of a manifest of any version only the list of files is read.

    Args:
        bundle: a folder that holds something.
    """
    try:
        data = strict_json.read(bundle / MANIFEST)
    except (OSError, ValueError):
        data = None
    data = data if isinstance(data, dict) else {}
    ours = {"schema_version", "layouts", "files"} <= data.keys()
    listed = data["files"] if ours and isinstance(data["files"], dict) else {}
    others = (n for n in strangers(bundle, listed) if not is_draft(n, f"{ENGINES}|{MANIFEST}"))
    others = (n for n in others if n != README or not is_generated(bundle / README))
    return next(others, None if ours else MANIFEST)


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

    Raises:
        LuvcError: the target's folder cannot be written to, or the disk is full.
    """
    target = target.resolve()
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
    with writing(target, NO_ROOM), held(target, os.mkdir) as work:
        yield work


@contextlib.contextmanager
def replacing(target: Path, check: Callable[[Path], None] = check_place) -> Iterator[Path]:
    """A folder `beside` the target that takes its name when the block succeeds.

    An earlier folder stays whole and loadable until that moment, and when the block fails or the
    process is killed.

    Args:
        target: the folder.
        check: refuses a target that is not to be replaced; asked again at the end.

    Raises:
        LuvcError: see `beside` and `check`.
    """
    check(target)
    with beside(target) as work:
        yield work
        check(target)
        with writing(target):
            _sync(work)
            _swap(work, target.resolve())


def remove_leftovers(target: Path) -> None:
    """Remove the temporary folders of killed processes beside `target`.

    A folder that was put aside for a swap that never ended gets its name back.
    """
    for path in leftovers(target.parent, re.escape(target.name)):
        if path.name.endswith(ASIDE) and not target.exists():
            os.rename(path, target)
        else:
            remove(path)


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
        old = work.with_name(work.name + ASIDE)
        with locked(target):
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
