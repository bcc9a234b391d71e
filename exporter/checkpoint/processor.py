"""A checkpoint's tokenizer, chat template and image processor, with errors that say which file is wrong."""

from pathlib import Path
from typing import Any

from ... import strict_json
from ...engines.prompt.loading import read_pretrained
from ...engines.prompt.pixels import ImageProcessor
from ...errors import LuvcError, brief


def read_tokenizer(folder: Path, source: str, template: str | None) -> Any:
    """The tokenizer with the chat template that the checkpoint's processor would use.

    Args:
        folder: of the checkpoint's files.
        source: what messages call the checkpoint.
        template: the family's own, for checkpoints without any.

    Raises:
        LuvcError: a file cannot be read, or there is no template.
    """
    from transformers import AutoTokenizer

    tokenizer = _read(AutoTokenizer, folder, source, "tokenizer files")
    found = _processor_template(folder, source) or tokenizer.chat_template or template
    if not found:
        raise LuvcError(f"{source} has no chat template; add a chat_template.jinja file")
    tokenizer.chat_template = found
    return tokenizer


def read_image_processor(folder: Path, source: str) -> Any:
    """The image processor, in its Pillow form where the family has one.

    Raises:
        LuvcError: it cannot be read.
    """
    return _read(ImageProcessor, folder, source, "preprocessor_config.json")


def _processor_template(folder: Path, source: str) -> str | None:
    """The template of the processor's own files, which goes before the tokenizer's.

    Checkpoints made of a text model may keep that model's template beside their own.
    """
    for name in ("processor_config.json", "chat_template.json"):
        file = folder / name
        try:
            found = strict_json.read(file) if file.is_file() else {}
            if found.get("chat_template"):
                return found["chat_template"]
        except (OSError, ValueError, AttributeError) as e:
            raise LuvcError(f"{source}: {name} cannot be read: {brief(e)}") from e
    return None


def _read(auto: Any, folder: Path, source: str, what: str) -> Any:
    return read_pretrained(auto, folder, what, source, "mend or fetch it again")
