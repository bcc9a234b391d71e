"""What may lie in a bundle's folder: the files its manifest lists, and no link that leaves it.

Tokenizer and image processor are read by a library that takes whatever it finds in their folder, so a
file that nobody listed would be loaded all the same.
"""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from ...errors import LuvcError
from .readme import README

MANIFEST = "manifest.json"
GRAPHS = "onnx"
ENGINES = "engines"
PROCESSOR = "processor"
REPORT = "report"
PARTS = (GRAPHS, PROCESSOR, REPORT, ENGINES)

# At the top nothing but the manifest is opened: what the hub and file managers put there is no harm.
BESIDE = re.compile(rf"\..*|{re.escape(README)}")
# What a stopped luvc-build leaves, and kernels that TensorRT-RTX keeps; both are opened by listed names.
BUILT = re.compile(rf"{ENGINES}/[^/]+/([^/]+\.plan|runtime-[^/]+\.cache|\.runtime-[^/]+)")
CACHE_FOLDER = re.compile(r"(models|datasets|spaces)--.+")


def strangers(root: Path, listed: Collection[str]) -> Iterator[str]:
    """Names of what lies in a bundle's folder and is neither listed nor made by luvc-build.

    Args:
        root: the folder.
        listed: names of the manifest's files.
    """
    folders = {str(p) for name in listed for p in PurePosixPath(name).parents} | set(PARTS)
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    if name in folders or folder == ENGINES:
                        waiting.append(name)
                        continue
                elif name in listed or name == MANIFEST or BUILT.fullmatch(name):
                    continue
                yield name


def check_contents(root: Path, listed: Collection[str]) -> None:
    """Refuse a bundle that holds what its manifest does not list.

    Args:
        root: the bundle folder.
        listed: names of the manifest's files.

    Raises:
        LuvcError: names it.
    """
    for name in strangers(root, listed):
        if "/" in name or not BESIDE.fullmatch(name):
            kind = "is a link" if (root / name).is_symlink() else "is not listed in the manifest"
            raise LuvcError(
                f"{root}: {name} {kind}; if it is yours, move it out of the bundle, otherwise do not use "
                "this bundle"
            )


def leaves(root: Path, name: str) -> bool:
    """Whether a name is a path out of the bundle, or a link to anything but its own place in the hub's cache.

    The hub's cache keeps each file of a repository in `blobs`, and a bundle's folder of links to these.

    Args:
        root: the bundle folder.
        name: of a file in it.
    """
    plain = PurePosixPath(name)
    if plain.is_absolute() or ".." in plain.parts or "\0" in name:
        return True
    top = root.resolve()
    path, real = top / plain, (top / plain).resolve()
    return real != path and real.parent != _blobs(top)


def _blobs(root: Path) -> Path | None:
    """Where the hub's cache keeps the files of the snapshot that a bundle lies in."""
    for folder in (root, *root.parents):
        snapshots, repository = folder.parent, folder.parent.parent
        if snapshots.name == "snapshots" and CACHE_FOLDER.fullmatch(repository.name):
            return repository / "blobs"
    return None
