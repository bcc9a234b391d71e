"""Python values as text and back, so that an input which no JSON can hold is kept as a file."""

import ast
import io
from typing import Any

import numpy as np
from PIL import Image

SPECIAL = "luvc-fuzz"
"""First item of a tuple that stands for what Python has no literal of."""


def encode(value: Any) -> bytes:
    """A value of literals and `special` tuples, as ASCII."""
    return ascii(value).encode()


def decode(data: bytes) -> Any:
    """The value, its special tuples made into what they stand for."""
    return _made(ast.literal_eval(data.decode("ascii")))


def special(kind: str, *arguments: Any) -> tuple[Any, ...]:
    """What stands for an array, a picture, a number without a literal, or deep nesting."""
    return SPECIAL, kind, *arguments


def _array(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, dtype)


def _picture(mode: str, size: tuple[int, int]) -> Image.Image:
    return Image.new(mode, size)


def _file(kind: str, mode: str, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind)
    return file.getvalue()


def _deep(levels: int, kind: str) -> Any:
    value: Any = None
    for _ in range(levels):
        value = [value] if kind == "list" else {"a": value}
    return value


def _many(value: Any, count: int) -> Any:
    return value * count if isinstance(value, str) else [value] * count


MAKERS = {
    "array": _array,
    "picture": _picture,
    "file": _file,
    "float": float,
    "deep": _deep,
    "many": _many,
    "object": object,
}


def _made(value: Any) -> Any:
    if isinstance(value, tuple) and value[:1] == (SPECIAL,):
        return MAKERS[value[1]](*value[2:])
    if isinstance(value, (list, tuple)):
        return type(value)(_made(v) for v in value)
    if isinstance(value, dict):
        return {_made(k): _made(v) for k, v in value.items()}
    return value
