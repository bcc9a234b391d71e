"""The bundle folder: written in a temporary place and swapped in whole, checked when loaded.

Loading runs no code from the bundle, reads no file that its manifest does not list and follows no path
out of it; docs/security.md has what is promised of bundles that a stranger made.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from ... import strict_json
from ...errors import LuvcError, brief
from ...files import whole
from .contents import ENGINES, GRAPHS, MANIFEST, PROCESSOR, REPORT, check_contents, leaves
from .manifest import OLDEST, SCHEMA_VERSION, File, Manifest

__all__ = ["ENGINES", "FACTORS", "GRAPHS", "MANIFEST", "PROCESSOR", "REPORT", "WEIGHTS", "Bundle"]
# beside the graphs: runtimes refuse paths that leave their folder
WEIGHTS = f"{GRAPHS}/weights.safetensors"
FACTORS = f"{GRAPHS}/factors.safetensors"
"""What calibration divided norms and biases by, of a bundle that has such."""
RETRIES = 3  # to read a bundle that is being replaced


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle.

    Attributes:
        path: where it lies.
        manifest: what it says of itself.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def load(cls, path: str | os.PathLike, verify: bool = False, engines: bool = True) -> "Bundle":
        """Read and check a bundle.

        Args:
            path: the bundle folder.
            verify: also compare SHA-256 sums (reads every byte).
            engines: check the engines too; False is for building them again.

        Raises:
            LuvcError: not a bundle, made by a newer version, or a file is missing, truncated, changed,
                not listed or outside the folder.
        """
        root = Path(path)
        bundle = cls(root, read_manifest(root))
        problem = bundle._problem(verify, engines)
        for _ in range(RETRIES):
            now = read_manifest(root)
            if now == bundle.manifest:
                break
            bundle = replace(bundle, manifest=now)  # an export took its place meanwhile
            problem = bundle._problem(verify, engines)
        if problem is not None:
            raise problem
        return bundle

    def file(self, name: str) -> Path:
        """Path of a listed file.

        Raises:
            LuvcError: the name leaves the folder.
        """
        if leaves(self.path, name):
            raise LuvcError(
                f"{self.path}: {name!r} leaves the bundle; do not use this bundle, unless you made the link "
                "yourself: then copy the file in its place"
            )
        return self.path / name

    @contextmanager
    def opening(self, name: str) -> Iterator[Path]:
        """Path of a listed file, for a block that opens it to run it beside files that are open already.

        Another bundle may have taken the place of the one that was loaded, whose open graphs would then
        answer together with graphs of another model. Engines that luvc-build adds replace nothing.

        Raises:
            LuvcError: this file, a graph or the weights were replaced or removed since the bundle was
                loaded.
        """
        self._check_unchanged(name)
        try:
            yield self.file(name)
        finally:  # replaced meanwhile, it may have been opened, or have failed in any way
            self._check_unchanged(name)

    @property
    def processor(self) -> Path:
        """Folder of tokenizer, image processor and chat template."""
        return self.path / PROCESSOR

    def with_manifest(self, manifest: Manifest) -> "Bundle":
        """The bundle with another manifest, which replaces the one on disk in one step."""
        with whole(self.path / MANIFEST, lasting=True) as draft:
            draft.write_text(manifest.model_dump_json(indent=1))
        return replace(self, manifest=manifest)

    def intact(self, name: str) -> bool:
        """Whether a listed file is there in its size."""
        path = self.file(name)
        return path.is_file() and path.stat().st_size == self.manifest.files[name].bytes

    def _check_unchanged(self, name: str) -> None:
        """Compare the manifest on disk with the loaded one: this file, graphs, weights, processor."""
        loaded, why = self.manifest.files, ""
        try:
            now = read_manifest(self.path).files
        except (LuvcError, OSError) as e:
            now, why = {}, f" ({e})"
        parts = f"{GRAPHS}/", f"{PROCESSOR}/"
        names = [n for n in loaded if n == name or n.startswith(parts)]
        if why or any(now.get(n) != loaded[n] for n in names):
            raise LuvcError(
                f"{self.path} was replaced or removed since it was loaded{why}: load it again, or restart "
                "the service"
            )

    def _problem(self, verify: bool, engines: bool) -> LuvcError | None:
        try:
            self._check_files(verify, engines)
        except LuvcError as e:
            return e
        except OSError as e:  # it went away while it was looked at
            return LuvcError(f"{self.path} cannot be read: {brief(e)}")
        return None

    def _check_files(self, verify: bool, engines: bool) -> None:
        """Hold the folder to the manifest; see `load`."""
        root, manifest = self.path, self.manifest
        plans = {p.file for engine in manifest.engines for p in engine.graphs}
        for name, file in manifest.files.items():
            if engines or name not in plans:
                self._check(name, file, verify, "luvc-build" if name in plans else "")
        check_contents(root, manifest.files.keys())
        for layout in manifest.layouts:
            for graph in layout.graphs.files:
                if graph not in manifest.files:
                    raise LuvcError(
                        f"{root}: layout {layout.name} names {graph}, which is not listed; export again"
                    )
        for plan in sorted(plans):
            if plan not in manifest.files:
                raise LuvcError(f"{root}: engine {plan} is not listed; run luvc-build again")

    def _check(self, name: str, file: File, verify: bool, command: str) -> None:
        path = self.file(name)
        mend = f"run {command} again" if command else "export or copy the bundle again"
        if not path.is_file():
            raise LuvcError(f"{self.path}: {name} is missing; {mend}")
        size = path.stat().st_size
        if size != file.bytes:
            raise LuvcError(
                f"{self.path}: {name} has {size} bytes, the manifest says {file.bytes}; " + mend
            )
        if verify and sha256(path) != file.sha256:
            raise LuvcError(f"{self.path}: {name} was changed (SHA-256 differs); {mend}")


def read_manifest(root: Path) -> Manifest:
    """What a folder says of itself, checked by itself alone.

    Raises:
        LuvcError: it is no bundle, or its manifest is not readable, not valid or of another version.
    """
    path = root / MANIFEST
    if not root.is_dir():
        raise LuvcError(f"{root} is not a folder; give the folder that luvc-export wrote")
    if not path.is_file():
        raise LuvcError(f"{root} is not a bundle: it has no {MANIFEST}")
    if leaves(root, MANIFEST):
        raise LuvcError(f"{path} is a link that leaves the bundle; do not use this bundle")
    try:
        data = strict_json.read(path)
        version = int(data["schema_version"] + 0)
    except (ValueError, KeyError, TypeError, OverflowError, OSError) as e:
        raise LuvcError(f"{path} is not a readable manifest ({e}); export the bundle again") from e
    if not OLDEST <= version <= SCHEMA_VERSION:
        raise LuvcError(
            f"{root} has manifest schema {version}, this version reads {OLDEST} to {SCHEMA_VERSION}: "
            + ("upgrade luvc-export" if version > SCHEMA_VERSION else "export the bundle again")
        )
    try:
        return Manifest.model_validate(data | {"schema_version": SCHEMA_VERSION})
    except ValidationError as e:
        raise LuvcError(
            f"{path} is not valid: {strict_json.first_error(e)}; export the bundle again"
        ) from e


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def list_files(root: Path, known: Mapping[str, File]) -> dict[str, File]:
    """Every file below root but the manifest, with size and hash; `known` ones are not read again."""
    found = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        if name != MANIFEST:
            found[name] = known.get(name) or File(bytes=path.stat().st_size, sha256=sha256(path))
    return found
