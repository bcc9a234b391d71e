"""Weights of a checkpoint, with errors that say what is wrong with which file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import LuvcError, brief
from .family import Family
from .hub import quiet

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights, the first there is; in shards NAME.index.json lists them."""


def fetch_weights(family: Family, progress: Callable[[str], None] = lambda step: None) -> None:
    """Have the weights of a hub id in the hub's cache; those of a directory are where they are.

    Args:
        family: of the checkpoint.
        progress: told the step, if there is anything to download. Where it has a context manager
            `aside`, which makes room on the terminal, huggingface_hub shows its bars inside it.

    Raises:
        LuvcError: they cannot be downloaded.
    """
    if family.commit is None:
        return
    try:
        wanted = [_files(family.folder, name) for name in _names(family)]
        if any(_complete(family.folder, files) for files in wanted):
            return
        progress("downloading the weights")
        with getattr(progress, "aside", quiet)():
            _download(family, wanted)
    except LuvcError:
        raise
    except Exception as e:  # whatever the hub client raises
        raise LuvcError(f"{family.source}: the weights cannot be downloaded: {brief(e)}") from e


def _download(family: Family, wanted: list[list[str]]) -> None:
    from huggingface_hub import snapshot_download

    for files in wanted:
        snapshot_download(family.model, revision=family.commit, allow_patterns=files)
        if _complete(family.folder, files):
            return
    named = " or ".join(files[0] for files in wanted)
    raise LuvcError(
        f"{family.source}: the hub's cache holds no {named}, and none was downloaded: go online if "
        "HF_HUB_OFFLINE is set, otherwise the repository has none"
    )


def _names(family: Family) -> tuple[str, ...]:
    """Where transformers looks: at what the config names, or at the usual names."""
    named = getattr(family.config, "transformers_weights", None)
    return (named.removesuffix(".index.json"),) if named else WEIGHTS


def _files(folder: Path, name: str) -> list[str]:
    """The one file of the weights, and the shards that its index lists, where there is one."""
    index = folder / f"{name}.index.json"
    shards = json.loads(index.read_text())["weight_map"].values() if index.is_file() else ()
    return [name, *sorted(set(shards))]


def _complete(folder: Path, files: list[str]) -> bool:
    """Whether the one file is there, or every shard."""
    there = [(folder / file).is_file() for file in files]
    return there[0] or (len(there) > 1 and all(there[1:]))


def load_model(family: Family, progress: Callable[[str], None] = lambda step: None) -> Any:
    """The Hugging Face model in the checkpoint's own dtype, in evaluation mode; no remote code is run.

    Without a conversion the parameters stay mapped files: nothing is read before it is used.

    Args:
        family: of the checkpoint.
        progress: told each step, see `fetch_weights`.

    Raises:
        LuvcError: a weight file is missing, truncated or does not fit the config.
    """
    from transformers import AutoModelForImageTextToText

    fetch_weights(family, progress)
    progress("loading the weights")
    try:
        with quiet():
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                str(family.folder),
                config=family.config,
                dtype="auto",
                output_loading_info=True,
                trust_remote_code=False,
            )
            model, info = loaded
    except MemoryError:
        raise
    except Exception as e:  # the loader raises whatever its readers raise
        raise LuvcError(f"{family.source}: the weights cannot be loaded: {brief(e)}") from e
    missing = sorted(info["missing_keys"])
    if missing:
        raise LuvcError(
            f"{family.source}: {len(missing)} weights are missing, such as {missing[0]}; "
            "complete the checkpoint (is a shard absent?)"
        )
    mismatched = info.get("mismatched_keys")
    if mismatched:
        raise LuvcError(
            f"{family.source}: weights do not fit the config: {sorted(map(str, mismatched))[0]}; they are "
            "of another checkpoint"
        )
    return model.eval()
