"""A bundle by its folder or its hub id: only what its manifest lists is downloaded, engines aside."""

import glob
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import LuvcError, is_line
from ..bundle.contents import ENGINES, MANIFEST
from ..bundle.folder import Bundle, read_manifest
from ..bundle.swap import check_space
from .failures import told
from .pretrained import Token

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def open_bundle(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: Token = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    verify: bool = False,
) -> Bundle:
    """A bundle that lies in a folder, or on the hub; see `VLM.from_pretrained`.

    Raises:
        LuvcError: there is no such bundle, the hub refuses it or is not reached, or it does not pass the
            checks of `Bundle.load`.
    """
    name = os.fspath(source)
    if Path(name).exists():
        if revision is not None:
            raise LuvcError(
                f"revision {revision} is for hub ids, and {name} is here on the disk: leave it out"
            )
        return Bundle.load(name, verify=verify)
    if not is_line(name) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise LuvcError(f"there is no folder {name}: give a bundle's folder, or its hub id")
    folder = _fetch(name, revision, token, cache_dir, local_files_only)
    bundle = Bundle.load(folder, verify=verify, engines=False)
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"engines": ()}))


def client(token: Token) -> "HfApi":
    """The hub's client, which reads HF_ENDPOINT."""
    from huggingface_hub import HfApi

    from ... import __version__

    return HfApi(token=token, library_name="luvc-export", library_version=__version__)


def _fetch(
    repo_id: str,
    revision: str | None,
    token: Token,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
) -> Path:
    """The cache's folder of one commit, with all files that its manifest lists but the engines."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    api = client(token)
    where = {"cache_dir": cache_dir, "local_files_only": local_files_only}
    with told(f"there is no folder {repo_id}, and from the hub it cannot be loaded"):
        try:
            first = api.hf_hub_download(repo_id, MANIFEST, revision=revision, **where)
        except RemoteEntryNotFoundError as e:
            raise LuvcError(
                f"{repo_id} is no bundle: it has no {MANIFEST}; of a checkpoint make one: luvc-export "
                f"--model {repo_id}"
            ) from e
        folder = Path(first).parent
        listed = read_manifest(folder).files
        wanted = [name for name in listed if not name.startswith(f"{ENGINES}/")]
        missing = [name for name in wanted if not (folder / name).exists()]
        if missing:
            check_space(folder, sum(listed[name].bytes for name in missing))
            names = [glob.escape(name) for name in (MANIFEST, *wanted)]
            api.snapshot_download(repo_id, revision=folder.name, allow_patterns=names, **where)
    return folder
