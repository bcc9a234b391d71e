"""What adapters ask of a checkpoint's tokenizer and image processor."""

from typing import Any

from ...errors import LuvcError


def blank_run(processor: Any, size: tuple[int, int], options: dict[str, Any]) -> Any:
    """What the image processor makes of an empty image of `size` = (height, width), as numpy."""
    from PIL import Image

    return processor(Image.new("RGB", (size[1], size[0])), return_tensors="np", **options)


def known_token(tokenizer: Any, token: str) -> str:
    """A token that must be in the vocabulary.

    Raises:
        LuvcError: it is not.
    """
    if token not in tokenizer.get_vocab():
        raise LuvcError(
            f"the tokenizer does not know {token}; add it to its special tokens, as the family's "
            "published checkpoints do"
        )
    return token


def named_token(tokenizer: Any, name: str) -> str:
    """A token that the family's tokenizers name.

    Raises:
        LuvcError: the tokenizer does not name it.
    """
    token = getattr(tokenizer, name, None)
    if not token:
        raise LuvcError(
            f"the tokenizer names no {name}; add it to extra_special_tokens in "
            "tokenizer_config.json, as the family's published checkpoints do"
        )
    return str(token)
