"""What adapters ask of a checkpoint's processor: of its image processor and of its tokenizer."""

from typing import Any

from ...errors import LuvcError


def blank_run(processor: Any, size: tuple[int, int], options: dict[str, Any]) -> Any:
    """What the image processor makes of an empty image of `size` = (height, width), as numpy."""
    from PIL import Image

    return processor(Image.new("RGB", (size[1], size[0])), return_tensors="np", **options)


def crop_size(processor: Any) -> tuple[int, int]:
    """(height, width) an image processor ends with."""
    found = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    if getattr(found, "height", None):
        return int(found["height"]), int(found["width"])
    edge = found["shortest_edge"]
    return int(edge), int(edge)


def count_tiles(size: tuple[int, int], tile: tuple[int, int], most: int) -> tuple[int, int]:
    """Rows and columns of tiles of an image.

    Raises:
        LuvcError: not a whole number of tiles, or more than the processor cuts.
    """
    if size[0] % tile[0] or size[1] % tile[1]:
        raise LuvcError(
            f"image size {size[0]}x{size[1]} is not a whole number of {tile[0]}x{tile[1]} tiles: "
            f"use multiples such as {tile[0]}x{tile[1]} or {tile[0]}x{2 * tile[1]}"
        )
    rows, columns = size[0] // tile[0], size[1] // tile[1]
    if rows * columns > most:
        raise LuvcError(
            f"image size {size[0]}x{size[1]} needs {rows * columns} tiles; the image processor "
            f"cuts at most {most}: use a smaller one"
        )
    return rows, columns


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


def pieces(text: str, token: str) -> list[tuple[str, int]]:
    """A prompt text as (piece, repeats) pairs, repeats of `token` counted."""
    pairs: list[tuple[str, int]] = []
    while text:
        before, found, text = text.partition(token)
        if before:
            pairs.append((before, 1))
        if found:
            count = 1
            while text.startswith(token):
                count, text = count + 1, text[len(token) :]
            pairs.append((token, count))
    return pairs
