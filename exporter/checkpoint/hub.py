"""Where a checkpoint's files lie: its directory, or the snapshot of one commit of a hub repository."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from ...engines.bundle.manifest import Manifest
from ...engines.bundle.readme import README
from ...errors import LuvcError, brief, is_line
from ...places import LONGEST

NOTICES = ("LICENSE*", "NOTICE*")
"""Terms of the weights: they go where the weights go."""
TEXTS = ("*.json", "*.jinja", "*.model", "*.txt", README, *NOTICES)
"""All that is read of a checkpoint beside its weights; code is not."""


def named(source: str) -> tuple[str, str | None]:
    """A hub id and its revision: "name/model@v2" -> ("name/model", "v2"); None where none is said."""
    model, _, revision = source.partition("@")
    return model, revision or None


def checkpoint_of(manifest: Manifest, model: str | None = None) -> str:
    """What to read of a bundle's checkpoint: as it was named at export, at the commit that was exported.

    Args:
        manifest: of the bundle.
        model: directory or hub id instead; the bundle's own name stands for its commit here too.
    """
    if manifest.revision is None or model not in (None, manifest.model):
        return model or manifest.model
    return f"{manifest.model}@{manifest.revision}"


def locate(source: str) -> tuple[Path, str | None]:
    """The folder of config, tokenizer and processor, and the commit that a hub id stands for.

    What the hub's cache lacks of them is downloaded; offline the cache must do.

    Args:
        source: directory, hub id, or ID@REVISION with a branch, tag or commit.

    Raises:
        LuvcError: its name holds control characters, there is neither such a directory nor such a model on
            the hub, or it is not reached.
    """
    if not is_line(source) or len(source) > LONGEST:
        raise LuvcError(
            f"checkpoint {source[:200]!r} has control characters in its name, or more than {LONGEST} "
            "characters: give it a plain name"
        )
    path, (model, revision) = Path(source), named(source)
    if path.is_file():
        raise LuvcError(f"{source} is a file; give the checkpoint's directory or a hub id")
    if path.is_dir():
        return path, None
    if revision and Path(model).is_dir():
        raise LuvcError(
            f"{model} is a directory here, so {source} is no hub id: write ./{model} for the directory, or "
            "run in another folder"
        )
    if source.startswith((".", "/", "~")) or model.count("/") > 1:
        raise LuvcError(
            f"there is no directory {source}: give the checkpoint's place, or a hub id, with --model"
        )
    try:
        with quiet():
            folder = _from_hub(model, revision)
    except Exception as e:  # whatever the hub client raises
        raise LuvcError(f"no checkpoint can be read at {source!r}: {brief(e)}") from e
    return folder, folder.name


def _from_hub(model: str, revision: str | None) -> Path:
    """The cache's folder of a commit, with all but the weights."""
    from huggingface_hub import snapshot_download
    from transformers.utils.hub import cached_file

    config = cached_file(model, "config.json", revision=revision)  # whose errors say more
    if config is None:
        raise FileNotFoundError("it has no config.json")
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(TEXTS)))
    except FileNotFoundError:  # offline, and the cache lacks some: who needs them complains
        return Path(config).parent


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Our own progress is enough: no bars and no loading reports on the terminal."""
    from transformers.utils import logging as hf

    level, bars = hf.get_verbosity(), hf.is_progress_bar_enabled()
    hf.set_verbosity(logging.ERROR)
    hf.disable_progress_bar()
    try:
        yield
    finally:
        hf.set_verbosity(level)
        if bars:
            hf.enable_progress_bar()
