"""A checkpoint's config.json, read and refused early where nothing could be made of it."""

import json
from pathlib import Path
from typing import Any

from ...errors import LuvcError, brief
from ..vision.families import FAMILIES

_REMOTE = (
    "{source} needs code of its own (auto_map in config.json), which is never run; use the "
    "checkpoint in Hugging Face's own format (often named -hf); supported: {known}"
)


def read_config(source: str, folder: Path) -> Any:
    """The Hugging Face config of a vision-language model.

    Args:
        source: the directory or hub id as it was given, for messages.
        folder: where its files lie.

    Raises:
        LuvcError: not found, not a supported vision-language model, quantised, or needs remote code.
    """
    from transformers import AutoConfig

    known, raw = ", ".join(FAMILIES), _raw_config(source, folder)
    if raw.get("auto_map") and raw.get("model_type") not in FAMILIES:
        raise LuvcError(_REMOTE.format(source=source, known=known))
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
    _check_quantization(source, config)
    return config


def _raw_config(source: str, folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise LuvcError(f"{source} is not a checkpoint: it has no config.json")
    try:
        data = json.loads(file.read_text())
    except ValueError as e:
        raise LuvcError(f"{file} is not valid JSON: {e}") from e
    return data if isinstance(data, dict) else {}


def _check_quantization(source: str, config: Any) -> None:
    """Refuse weights whose scales a plain conversion would leave out."""
    for part in (config, config.text_config):
        found = getattr(part, "quantization_config", None)
        if found:
            found = found if isinstance(found, dict) else vars(found)
            raise LuvcError(
                f"{source} is quantised ({found.get('quant_method', 'unknown method')}): give the "
                "checkpoint it was made from"
            )
