"""The bundle folder: written in a temporary place and swapped in whole, checked when loaded.

Loading runs no code from the bundle and follows no path out of it.
"""

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from ..errors import LuvcError
from .manifest import SCHEMA_VERSION, File, Manifest

MANIFEST = "manifest.json"
GRAPHS = "onnx"
WEIGHTS = (
    "onnx/weights.safetensors"  # beside the graphs: runtimes refuse paths that leave their folder
)
PROCESSOR = "processor"
REPORT = "report"


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: where it lies and what it says of itself."""

    path: Path
    manifest: Manifest

    @classmethod
    def load(cls, path: str | os.PathLike, verify: bool = False) -> "Bundle":
        """Read and check a bundle.

        Args:
            path: the bundle folder.
            verify: also compare SHA-256 sums (reads every byte).

        Raises:
            LuvcError: not a bundle, made by a newer version, or a file is missing, truncated, changed
                or outside the folder.
        """
        root = Path(path)
        manifest = _read_manifest(root)
        bundle = cls(root, manifest)
        for name, file in manifest.files.items():
            bundle._check(name, file, verify)
        for layout in manifest.layouts:
            for graph in layout.graphs.model_dump().values():
                if graph not in manifest.files:
                    raise LuvcError(
                        f"{root}: layout {layout.name} names {graph}, which is not listed"
                    )
        for plan in (p.file for engine in manifest.engines for p in engine.graphs):
            if plan not in manifest.files:
                raise LuvcError(f"{root}: engine {plan} is not listed; run luvc-build again")
        return bundle

    def file(self, name: str) -> Path:
        """Path of a listed file.

        Raises:
            LuvcError: the name leaves the folder.
        """
        plain = PurePosixPath(name)
        path = self.path / plain
        inside = self.path.resolve()
        if plain.is_absolute() or ".." in plain.parts or inside not in path.resolve().parents:
            raise LuvcError(f"{self.path}: {name!r} leaves the bundle; do not use this bundle")
        return path

    @property
    def processor(self) -> Path:
        """Folder of tokenizer, image processor and chat template."""
        return self.path / PROCESSOR

    def with_manifest(self, manifest: Manifest) -> "Bundle":
        """The bundle with another manifest, which replaces the one on disk in one step."""
        target = self.path / MANIFEST
        draft = target.with_name(f".{MANIFEST}-{os.getpid()}")
        draft.write_text(manifest.model_dump_json(indent=1))
        _flush(draft)
        os.replace(draft, target)
        return replace(self, manifest=manifest)

    def _check(self, name: str, file: File, verify: bool) -> None:
        path = self.file(name)
        if not path.is_file():
            raise LuvcError(f"{self.path}: {name} is missing; export or copy the bundle again")
        size = path.stat().st_size
        if size != file.bytes:
            raise LuvcError(
                f"{self.path}: {name} has {size} bytes, the manifest says {file.bytes}; "
                "export or copy the bundle again"
            )
        if verify and sha256(path) != file.sha256:
            raise LuvcError(f"{self.path}: {name} was changed (SHA-256 differs); export it again")


def _read_manifest(root: Path) -> Manifest:
    path = root / MANIFEST
    if not root.is_dir():
        raise LuvcError(f"{root} is not a folder; give the folder that luvc-export wrote")
    if not path.is_file():
        raise LuvcError(f"{root} is not a bundle: it has no {MANIFEST}")
    try:
        data = json.loads(path.read_text())
        version = data["schema_version"]
    except (ValueError, KeyError, TypeError) as e:
        raise LuvcError(f"{path} is not a readable manifest ({e}); export the bundle again") from e
    if version != SCHEMA_VERSION:
        raise LuvcError(
            f"{root} has manifest schema {version}, this version reads {SCHEMA_VERSION}: "
            + ("upgrade luvc-export" if version > SCHEMA_VERSION else "export the bundle again")
        )
    try:
        return Manifest.model_validate(data)
    except ValidationError as e:
        raise LuvcError(f"{path} is not valid: {first_error(e)}; export the bundle again") from e


def first_error(error: ValidationError) -> str:
    """The first finding of a validation error, as `where: what, got value`."""
    finding = error.errors()[0]
    where = ".".join(map(str, finding["loc"]))
    what = finding["msg"].removeprefix("Value error, ")
    got = finding.get("input")
    if isinstance(got, (str, int, float)):
        what += f", got {got!r}"
    return f"{where}: {what}" if where else what


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def list_files(root: Path) -> dict[str, File]:
    """Every file below root but the manifest, with size and hash."""
    found = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        if name != MANIFEST:
            found[name] = File(bytes=path.stat().st_size, sha256=sha256(path))
    return found


def check_target(target: Path) -> None:
    """Refuse a target that a bundle cannot be written to, before any work is done.

    Raises:
        LuvcError: the target is a file or a folder that is no bundle, or its parent is not writable.
    """
    parent = target.absolute().parent
    if target.exists():
        if not target.is_dir():
            raise LuvcError(f"output {target} is a file; give the name of a folder")
        if not (target / MANIFEST).is_file() and any(target.iterdir()):
            raise LuvcError(
                f"output {target} exists and is not a bundle; give another name or empty it"
            )
    existing = next(p for p in (parent, *parent.parents) if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise LuvcError(f"output {target} cannot be written: no write access to {existing}")


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
def replacing(target: Path) -> Iterator[Path]:
    """A temporary folder that takes the target's name when the block succeeds.

    An earlier bundle stays whole and loadable until that moment, and when the block fails or the
    process is killed; leftovers of killed processes are removed by the next call.

    Raises:
        LuvcError: the disk is full.
    """
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    work = target.parent / f".{target.name}.luvc-{os.getpid()}-{secrets.token_hex(4)}"
    work.mkdir()
    try:
        yield work
        _sync(work)
        _swap(work, target)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LuvcError(f"the disk is full while writing {target}; nothing was changed") from e
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def remove_leftovers(target: Path) -> None:
    """Remove the temporary folders of killed processes beside `target`."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.luvc-(\d+)-[0-9a-f]+")
    for path in target.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match and not _alive(int(match[1])):
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
        _flush(path)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _swap(work: Path, target: Path) -> None:
    """Give `work` the target's name; an existing target is exchanged in one step."""
    if not target.exists():
        os.rename(work, target)
    elif not _exchange(work, target):
        old = work.with_name(work.name + "-old")
        os.rename(target, old)
        os.rename(work, target)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two names atomically (Linux renameat2); False where the system cannot."""
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return rename(here, os.fsencode(a), here, os.fsencode(b), exchange) == 0
