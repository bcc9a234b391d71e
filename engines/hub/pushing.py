"""A bundle into a repository of the hub, in one commit: its files and its card in place of another's."""

import contextlib
import re
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ...errors import LuvcError
from ..bundle.contents import BESIDE, ENGINES, MANIFEST, PARTS
from ..bundle.folder import WEIGHTS, Bundle
from ..bundle.manifest import Manifest
from ..bundle.readme import README, is_sealed
from .card import card, model_name
from .failures import LOGIN, told
from .fetching import client
from .pretrained import Token

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def push(
    bundle: Bundle,
    repo_id: str,
    *,
    private: bool | None = None,
    commit_message: str | None = None,
    revision: str | None = None,
    token: Token = None,
) -> str:
    """Upload a bundle; see `VLM.push_to_hub`.

    Raises:
        LuvcError: the hub refuses it or is not reached, the repository holds what no bundle has or is
            public, or a file was changed since the export; what was there is as it was.
    """
    api = client(token)
    Bundle.load(bundle.path, verify=True, engines=False)
    sent = public(bundle.manifest)
    with told(f"{bundle.path} cannot be pushed to {repo_id}"), bundle.opening(WEIGHTS):
        name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(name, branch=revision, exist_ok=True)
        info = api.model_info(name, revision=revision)
        if private and not info.private:
            raise LuvcError(
                f"{name} is public on the hub, and private=True was asked for: make it private in its "
                "settings, or give another name"
            )
        there = [file.rfilename for file in info.siblings or ()]
        check_foreign(name, there)
        operations = [*_additions(bundle, sent), *_deletions(there, sent)]
        if _may_replace_card(api, name, there, info.sha):
            operations.append(
                _addition(README, card(replace(bundle, manifest=sent), name).encode())
            )
        commit = api.create_commit(
            name,
            operations,
            commit_message=commit_message or f"Bundle of {sent.model}",
            revision=revision,
            parent_commit=info.sha,
        )
        _check_whole(api, name, commit.oid, sent)
    return str(commit.commit_url)


def check_access(repo_id: str, token: Token = None) -> None:
    """Refuse a push that cannot work, before the work that leads to it.

    Raises:
        LuvcError: it is no hub id, nobody is logged in, the hub is not reached, or the repository holds
            what no bundle has.
    """
    from huggingface_hub.errors import LocalTokenNotFoundError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id

    api = client(token)
    with told(f"nothing can be pushed to {repo_id}"):
        validate_repo_id(repo_id)
        try:
            user = api.whoami()["name"]
        except LocalTokenNotFoundError as e:
            raise LuvcError(
                f"nothing can be pushed to {repo_id}: nobody is logged in; {LOGIN}"
            ) from e
        name = repo_id if "/" in repo_id else f"{user}/{repo_id}"
        with contextlib.suppress(RepositoryNotFoundError):  # it is made then
            check_foreign(name, api.list_repo_files(name))


def check_foreign(repo_id: str, names: Iterable[str]) -> None:
    """Refuse a repository that holds what no bundle has.

    Raises:
        LuvcError: names a file of it.
    """
    terms = re.compile(r"(LICENSE|NOTICE)[^/]*")
    for name in names:
        top = PurePosixPath(name).parts[0]
        if (
            top not in (*PARTS, MANIFEST)
            and not BESIDE.fullmatch(top)
            and not terms.fullmatch(name)
        ):
            raise LuvcError(
                f"{repo_id} holds {name:.200}, which no bundle has: push to a repository of its own"
            )


def public(manifest: Manifest) -> Manifest:
    """A manifest for others: without engines, and without the path of a checkpoint on this machine.

    Engines are native code for one kind of GPU, which nobody should take from a stranger.
    """
    files = {n: f for n, f in manifest.files.items() if not n.startswith(f"{ENGINES}/")}
    return manifest.model_copy(
        update={"files": files, "engines": (), "model": model_name(manifest)}
    )


def _additions(bundle: Bundle, sent: Manifest) -> list[Any]:
    listed = [_addition(name, str(bundle.file(name))) for name in sent.files]
    return [*listed, _addition(MANIFEST, sent.model_dump_json(indent=1).encode())]


def _addition(name: str, content: str | bytes) -> Any:
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)


def _deletions(there: Iterable[str], sent: Manifest) -> list[Any]:
    """What an earlier bundle had and this one has not."""
    from huggingface_hub import CommitOperationDelete

    parts = tuple(f"{part}/" for part in PARTS)
    gone = [n for n in there if n.startswith(parts) and n not in sent.files]
    return [CommitOperationDelete(path_in_repo=name) for name in gone]


def _may_replace_card(api: "HfApi", repo_id: str, there: list[str], commit: str | None) -> bool:
    """Whether the card is missing, or is one that was generated; what people wrote is left."""
    if README not in there:
        return True
    page = Path(api.hf_hub_download(repo_id, README, revision=commit)).read_bytes()
    if not is_sealed(page):
        warnings.warn(
            f"the {README} of {repo_id} was written or changed by somebody, and is left as it is",
            stacklevel=4,
        )
        return False
    return True


def _check_whole(api: "HfApi", repo_id: str, commit: str, sent: Manifest) -> None:
    """A .gitignore of the repository may have kept files out."""
    missing = {MANIFEST, *sent.files} - set(api.list_repo_files(repo_id, revision=commit))
    if missing:
        raise LuvcError(
            f"{repo_id} lacks {min(missing)} after the push: take it out of the repository's .gitignore "
            "and push again"
        )
