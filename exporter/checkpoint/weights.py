"""Weights of a checkpoint, with errors that say what is wrong with which file."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ... import strict_json
from ...errors import LuvcError, brief
from .family import Family
from .hub import quiet
from .quantised.parts import LEFTOVERS, PLAIN
from .quantised.plain_copy import plain_copy
from .quantised.weights import QuantisedWeights

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
    if not index.is_file():
        return [name]
    try:
        shards = sorted(set(strict_json.read(index)["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise LuvcError(f"{index} does not list the shards of the weights: {brief(e)}") from e
    for shard in shards:
        if not isinstance(shard, str) or not re.fullmatch(r"\w[\w.+-]*", shard):
            raise LuvcError(
                f"{index} names {shard!r:.80}, which is no file beside it; mend the index"
            )
    return [name, *shards]


def _complete(folder: Path, files: list[str]) -> bool:
    """Whether the one file is there, or every shard."""
    there = [(folder / file).is_file() for file in files]
    return there[0] or (len(there) > 1 and all(there[1:]))


def load_model(
    family: Family, progress: Callable[[str], None] = lambda step: None, part: bool = False
) -> Any:
    """The Hugging Face model in the checkpoint's own dtype, in evaluation mode; no remote code is run.

    Without a conversion the parameters stay mapped files: nothing is read before it is used.

    Args:
        family: of the checkpoint.
        progress: told each step, see `fetch_weights`.
        part: the family is the checkpoint's first layers: the weights of the others stay unused.

    Raises:
        LuvcError: a weight file is missing, truncated, does not fit the config, or holds weights that the
            model has no place for or that are quantised.
    """
    fetch_weights(family, progress)
    with _plain(family, progress) as folder:
        progress("loading the weights")
        model, info = _loaded(family, folder)
    _check_names(family, info, part)
    if beside := [n for n in info["unexpected_keys"] if n.startswith(family.adapter.left_out)]:
        told = f"leaving out {len(beside)} weights of parts that no bundle takes"
        progress(f"{told}, such as {min(beside)}")
    _stored_as_parameters(model)
    if unread := _unread(family, model):
        told = f"passing over {len(unread)} weights that {type(model).__name__} has no use for"
        progress(f"{told}, such as {unread[0]}")
    return model.eval()


@contextlib.contextmanager
def _plain(family: Family, progress: Callable[[str], None]) -> Iterator[Path]:
    """The folder of the weights as numbers: the checkpoint's own where they are not quantised."""
    if family.format is None:
        left = _check_types(family)
        _tell_leftovers(left, progress)
        yield family.folder
        return
    weights = quantised_weights(family)
    _tell_leftovers(weights.tables, progress)
    progress(f"making numbers of {len(weights.packed)} weights: {family.format.about}")
    for lost in weights.lost:
        progress(lost)
    with plain_copy(weights, family.folder) as folder:
        yield folder


def _tell_leftovers(names: list[str], progress: Callable[[str], None]) -> None:
    if names:
        told = f"passing over {len(names)} tables that the model makes by itself"
        progress(f"{told}, such as {names[0]}")


def quantised_weights(family: Family) -> QuantisedWeights:
    """The weights of a quantised checkpoint; its files are there.

    Raises:
        LuvcError: they are no safetensors, or not as the config says.
    """
    assert family.format is not None
    files = weight_files(family)
    if not files:
        raise LuvcError(
            f"{family.source} is quantised, and has no safetensors files; others are not read: give a "
            "checkpoint that has"
        )
    dtype = getattr(family.config, "dtype", None)
    return QuantisedWeights(family.format, files, dtype)


def _loaded(family: Family, folder: Path) -> tuple[Any, dict[str, Any]]:
    """The model, and what the loader says of names."""
    from transformers import AutoModelForImageTextToText

    try:
        with quiet():
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                str(folder),
                config=family.config,
                dtype="auto",
                output_loading_info=True,
                trust_remote_code=False,
                weights_only=True,  # of a .bin file: no code in a pickle
            )
            return loaded
    except MemoryError:
        raise
    except Exception as e:  # the loader raises whatever its readers raise
        raise LuvcError(f"{family.source}: the weights cannot be loaded: {brief(e)}") from e


def shapes_of(family: Family) -> Any:
    """The model without values: every parameter has its name and shape, nothing is read."""
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model: Any = AutoModelForImageTextToText.from_config(family.config)
    model.tie_weights()
    _stored_as_parameters(model)
    return model


def _stored_as_parameters(model: Any) -> None:
    """Make parameters of the buffers that a checkpoint stores, so that all it stores is a weight."""
    import torch

    for module in model.modules():
        kept = module._buffers.keys() - module._non_persistent_buffers_set
        for name in sorted(kept):
            buffer = module._buffers[name]
            if buffer is not None and buffer.is_floating_point():
                del module._buffers[name]
                module.register_parameter(name, torch.nn.Parameter(buffer, requires_grad=False))


def _check_names(family: Family, info: dict[str, Any], part: bool) -> None:
    """Refuse weights that are missing, of other shapes, or without a place in the model."""
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
    passed = family.adapter.left_out
    unused = sorted(
        n
        for n in info["unexpected_keys"]
        if not LEFTOVERS.fullmatch(n) and not n.startswith(passed)
    )
    if unused and not part:
        raise LuvcError(
            f"{family.source}: the model has no place for {len(unused)} of the weights, such as {unused[0]}, "
            "so it would not be the model they were trained as: give a checkpoint in Hugging Face's own "
            "format, not quantised"
        )


def _unread(family: Family, model: Any) -> list[str]:
    """Weights that transformers knows of and leaves out, such as GLM-OCR's layer that predicts ahead."""
    from safetensors import safe_open

    known = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    pattern = re.compile("|".join(sorted(known)) or "(?!)")
    names: list[str] = []
    for file in weight_files(family):
        with safe_open(file, "pt") as tensors:
            names += tensors.keys()
    used = model.state_dict().keys()
    return sorted(n for n in names if pattern.search(n) and n not in used)


def _check_types(family: Family) -> list[str]:
    """Refuse quantised weights, which the loader would take for plain numbers.

    Returns:
        Names of the leftovers, which it passes over.

    Raises:
        LuvcError: a weight of another type than floating point, or a file that is not readable.
    """
    from safetensors import SafetensorError, safe_open

    left = []
    for file in weight_files(family):
        try:
            with safe_open(file, "pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 it is no mapping
                    kind = tensors.get_slice(name).get_dtype()
                    if LEFTOVERS.fullmatch(name):
                        left.append(name)
                    elif kind not in PLAIN:
                        raise LuvcError(
                            f"{family.source}: weight {name} has type {kind}, so the checkpoint is "
                            "quantised: give the one it was made from"
                        )
        except (OSError, SafetensorError) as e:
            raise LuvcError(
                f"{family.source}: the weights cannot be loaded: {file.name}: {brief(e)}"
            ) from e
    return left


def weight_files(family: Family) -> list[Path]:
    """The safetensors files of a checkpoint that are there; none where its weights are pickles."""
    return [file for file in files_of_weights(family) if file.suffix == ".safetensors"]


def files_of_weights(family: Family) -> list[Path]:
    """The files of a checkpoint's weights that are there, whatever their kind."""
    for name in _names(family):
        files = [family.folder / file for file in _files(family.folder, name)]
        if files[0].is_file():
            files = files[:1]
        found = [file for file in files if file.is_file()]
        if found:
            return found
    return []
