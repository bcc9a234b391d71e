"""Compiled engines inside a bundle: written beside, moved in and listed, so that none is half there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .folder import ENGINES, Bundle, sha256
from .manifest import Engine, File, Manifest
from .swap import beside


def find(manifest: Manifest, engine: Engine) -> Engine | None:
    """The listed engine of the same backend, GPUs, version and plugin form, or None."""
    wanted = engine.folder, engine.plugins
    return next((e for e in manifest.engines if (e.folder, e.plugins) == wanted), None)


@contextlib.contextmanager
def working_folder(bundle: Bundle) -> Iterator[Path]:
    """A hidden folder in the bundle for plans being built; removed at the end.

    Raises:
        LuvcError: the bundle is not writable, or the disk is full.
    """
    with beside(bundle.path / ENGINES) as work:
        yield work


def store(bundle: Bundle, engine: Engine, work: Path) -> Bundle:
    """Move new plans from `work` into the bundle and list the engine.

    The old entry leaves the manifest before its plans change, and the new one enters it after: at
    any moment what the manifest lists is whole.

    Args:
        bundle: the bundle as it is.
        engine: with all its graphs; those without a plan in `work` are in the bundle already.
        work: holds NAME.plan for each new one.
    """
    manifest = bundle.manifest
    kept = {
        p.file: manifest.files[p.file] for p in engine.graphs if not _new(work, p.file).exists()
    }
    fresh = {}
    for plan in (p.file for p in engine.graphs if p.file not in kept):
        path = _new(work, plan)
        fresh[plan] = File(bytes=path.stat().st_size, sha256=sha256(path))
    same = [e for e in manifest.engines if e.folder == engine.folder]
    old = {p.file for e in same for p in e.graphs}
    files = {n: f for n, f in manifest.files.items() if n not in old}
    others = tuple(e for e in manifest.engines if e.folder != engine.folder)
    if old:
        bundle = bundle.with_manifest(
            manifest.model_copy(update={"files": files, "engines": others})
        )
    bundle.path.joinpath(engine.folder).mkdir(parents=True, exist_ok=True)
    for plan in fresh:
        os.replace(_new(work, plan), bundle.file(plan))
    for plan in old - kept.keys() - fresh.keys():
        bundle.file(plan).unlink(missing_ok=True)
    listed = {"files": files | kept | fresh, "engines": (*others, engine)}
    return bundle.with_manifest(manifest.model_copy(update=listed))


def _new(work: Path, plan: str) -> Path:
    return work / Path(plan).name
