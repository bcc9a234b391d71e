"""A checkpoint's config.json, read and refused early where nothing could be made of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ... import strict_json
from ...errors import LuvcError, brief, shown
from ..vision.families import FAMILIES
from .quantised.config import format_in, without_quantisation
from .quantised.format import Format

_REMOTE = (
    "{source} needs code of its own (auto_map in config.json), which is never run; use the "
    "checkpoint in Hugging Face's own format (often named -hf); supported: {known}"
)

ADAPTER = "adapter_config.json"
QUANTISED = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")
"""Files by which other tools say that the weights beside them are quantised."""
LARGEST = 1 << 31
"""Of any number in config.json; positions go furthest."""
LIMITS = {"layers": 1024, "depth": 1024, "size": 1 << 24, "dim": 1 << 24, "heads": 1 << 16}
"""Of those whose name ends so; loops run over layers."""
UNUSED = "audio_config."
"""A part that no bundle takes (VisionAdapter.left_out): it bounds gradients by 1e10."""


@contextmanager
def making_sense(source: str) -> Iterator[None]:
    """Say of a checkpoint's files what their values end in, where something is worked out from them.

    Transformers checks few of a config's values, so sizes may be lists, zero or missing.

    Raises:
        LuvcError: they make no sense together.
    """
    try:
        yield
    except LuvcError:
        raise
    except ValidationError as e:
        raise LuvcError(
            f"{source}: its config and processor files give what no bundle may hold "
            f"({strict_json.first_error(e)}): mend them or fetch them again"
        ) from e
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as e:
        raise LuvcError(
            f"{source}: config.json and preprocessor_config.json make no sense together "
            f"({type(e).__name__}: {brief(e)}): mend them or fetch them again"
        ) from e


def read_config(source: str, folder: Path) -> tuple[Any, Format | None]:
    """The Hugging Face config of a vision-language model, and what reads its weights if they are quantised.

    Args:
        source: the directory or hub id as it was given, for messages.
        folder: where its files lie.

    Raises:
        LuvcError: not found, not a supported vision-language model, quantised in a way that is not read,
            an adapter, with a number out of bounds, or needs remote code.
    """
    from transformers import AutoConfig

    _check_files(source, folder)
    known, raw = ", ".join(FAMILIES), _raw_config(source, folder)
    _check_values(source, raw)
    if raw.get("auto_map") and raw.get("model_type") not in FAMILIES:
        raise LuvcError(_REMOTE.format(source=source, known=known))
    form = format_in(raw, source)
    _check_other_tools(source, folder, form)
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as e:  # whatever the config classes raise
        if "trust_remote_code" in str(e):
            raise LuvcError(_REMOTE.format(source=source, known=known)) from e
        kind = raw.get("model_type")
        if kind and kind not in FAMILIES:
            raise LuvcError(
                f"model type {kind!r} is not a supported vision-language family: {known}"
            ) from e
        raise LuvcError(f"no checkpoint can be read at {source!r}: {brief(e)}") from e
    if not hasattr(config, "vision_config"):
        raise LuvcError(
            f"{source} is a {config.model_type} model without a vision tower; supported families: {known}"
        )
    return without_quantisation(config), form


def _raw_config(source: str, folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise LuvcError(f"{source} is not a checkpoint: it has no config.json")
    try:
        data = strict_json.read(file)
    except (OSError, ValueError) as e:
        raise LuvcError(f"{file} is not valid JSON: {brief(e)}") from e
    return data if isinstance(data, dict) else {}


def _check_files(source: str, folder: Path) -> None:
    """Refuse what would be loaded with some libraries installed and dropped without, or not understood."""
    if (folder / ADAPTER).exists():
        raise LuvcError(
            f"{source} holds an adapter ({ADAPTER}), which is not applied here: merge it into its model "
            "first (with peft: merge_and_unload, save_pretrained) and give the merged checkpoint"
        )


def _check_other_tools(source: str, folder: Path, form: Format | None) -> None:
    """Refuse what another tool says of the weights where config.json says nothing."""
    for name in QUANTISED:
        if form is None and (folder / name).exists():
            raise LuvcError(
                f"{source} is quantised ({name}), and config.json has no quantization_config, which would be "
                "read: give the checkpoint it was made from"
            )


def _check_values(source: str, raw: dict[str, Any]) -> None:
    """Refuse numbers without bounds."""
    for place, value in _entries(raw, ""):
        name = place.rpartition(".")[2]
        if isinstance(value, (int, float)) and not place.startswith(UNUSED):
            ending = name.rpartition("_")[2]
            limit = LIMITS.get(ending, LARGEST)
            if not abs(value) <= limit:
                raise LuvcError(
                    f"{source}: {place} is {shown(value)} in config.json, the limit is {limit}; no model of "
                    "such a size is known: mend config.json"
                )


def _entries(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Every value of a nested config with its place, such as "text_config.layers"."""
    inner = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        inner = ((place.rpartition(".")[2], v) for v in value)
    for name, entry in inner:
        where = f"{place}.{name}" if place and isinstance(value, dict) else str(name)
        yield where, entry
        yield from _entries(entry, where)
