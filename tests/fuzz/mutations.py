"""Hypothesis strategies that change what is right: bytes, JSON, protocol buffers."""

import copy
import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

NUMBERS = (
    0, -1, 1, 2, 3, 7, 255, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63),
    8_000_000_000, 0.5, -0.0, 5e-324, 1e308, float("inf"), float("-inf"), float("nan"), 10**400,
)  # fmt: skip
TEXTS = (
    "", " ", "\0", "a\0b", ".", "..", "../../../../etc/passwd", "/dev/zero", "/dev/stdin", "~", "a/b",
    "a" * 300, "a" * 100_000, "\ud800", "\x1b[31m", "\u202e", "%s%n", "{{ 1 }}", "<image>", "<|im_start|>",
    "float32", "int4", "nan", "None", "-1", "1e999", "\u00e9\u4e2d\U0001f600",
)  # fmt: skip
OTHERS = (None, True, False, [], {}, [[]], {"": None}, [0] * 1000, [None, 1, "a", {}])


def scalars() -> SearchStrategy[Any]:
    """What stands where something else is expected."""
    return st.one_of(
        st.sampled_from(NUMBERS),
        st.sampled_from(TEXTS),
        st.sampled_from(OTHERS),
        st.integers(-10, 10_000),
        st.text(max_size=20),
    )


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested lists and dictionaries."""
    found = [path]
    if isinstance(value, dict):
        for key in value:
            found += _paths(value[key], (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:8]):  # long lists are more of the same
            found += _paths(item, (*path, index))
    return found


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


@st.composite
def changed(draw: DrawFn, right: Any) -> Any:
    """Nested lists and dictionaries with up to three places changed."""
    value = copy.deepcopy(right)
    for _ in range(draw(st.integers(1, 3))):
        places = _paths(value)[1:]
        if not places:
            return draw(scalars())
        *outer, key = draw(st.sampled_from(places))
        holder = _at(value, tuple(outer))
        match draw(st.sampled_from(("other", "other", "gone", "swap", "more"))):
            case "other":
                holder[key] = draw(scalars())
            case "gone":
                del holder[key]
            case "swap":
                holder[key] = copy.deepcopy(_at(value, draw(st.sampled_from(places))))
            case "more" if isinstance(holder, dict):
                holder[draw(st.sampled_from(TEXTS))] = draw(scalars())
            case "more":
                holder.extend([copy.deepcopy(holder[key])] * draw(st.integers(1, 50)))
    return value


def json_bytes(right: Any) -> SearchStrategy[bytes]:
    """JSON files near a right one: other values, or other bytes, or nested without end."""
    text = json.dumps(right)
    whole = st.one_of(scalars(), changed(right)).map(lambda v: json.dumps(v).encode())
    deep = st.sampled_from((b"[" * 100_000, b'{"a":' * 100_000, b"[" * 99 + b"]" * 99))
    return st.one_of(
        changed(right).map(lambda v: json.dumps(v).encode()), whole, spoilt(text.encode()), deep
    )


@st.composite
def spoilt(draw: DrawFn, right: bytes) -> bytes:
    """Bytes with some of them changed, taken out, put in, repeated or cut off."""
    data = bytearray(right)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 64))
        match draw(st.sampled_from(("flip", "set", "cut", "put", "repeat", "end"))):
            case "flip" if data:
                data[start] ^= 1 << draw(st.integers(0, 7))
            case "set":
                data[start : start + length] = draw(st.binary(min_size=1, max_size=8))
            case "cut":
                del data[start : start + length]
            case "put":
                data[start:start] = draw(st.binary(min_size=1, max_size=64))
            case "repeat":
                data[start:start] = data[start : start + length] * draw(st.integers(1, 20))
            case "end":
                del data[start:]
    return bytes(data)


@st.composite
def messages(draw: DrawFn, right: Any, sizes: SearchStrategy[int]) -> bytes:
    """A protocol buffer's bytes with fields changed, anywhere inside it."""
    message = copy.deepcopy(right)
    for _ in range(draw(st.integers(1, 3))):
        inner = _descend(draw, message)
        fields = [f for f, _ in inner.ListFields()]
        if fields:
            _change(draw, inner, draw(st.sampled_from(fields)), sizes)
    return message.SerializeToString()


def _is_repeated(field: Any) -> bool:
    return (
        field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
    )


def _descend(draw: DrawFn, message: Any) -> Any:
    """Some message inside, often a deep one."""
    while True:
        inside: list[Any] = []
        for field, value in message.ListFields():
            if field.message_type is not None:
                inside.extend(value if _is_repeated(field) else [value])
        if not inside or draw(st.integers(0, 5)) == 0:
            return message
        message = inside[draw(st.integers(0, len(inside) - 1))]


def _change(draw: DrawFn, message: Any, field: Any, sizes: SearchStrategy[int]) -> None:
    new: Callable[[], Any] = {
        field.CPPTYPE_STRING: lambda: _text(draw, field),
        field.CPPTYPE_BOOL: lambda: draw(st.booleans()),
        field.CPPTYPE_FLOAT: lambda: draw(st.floats(width=32)),
        field.CPPTYPE_DOUBLE: lambda: draw(st.floats()),
    }.get(field.cpp_type, lambda: draw(sizes))
    value = getattr(message, field.name)
    if not _is_repeated(field):
        if field.message_type is not None or draw(st.integers(0, 3)) == 0:
            message.ClearField(field.name)
        else:
            _set(message, field.name, new())
        return
    index = draw(st.integers(0, len(value) - 1))
    match draw(st.sampled_from(("gone", "again", "other"))):
        case "gone":
            del value[index]
        case "again":
            value.extend([value[index]] * draw(st.sampled_from((1, 2, 100))))
        case "other" if field.message_type is None:
            held = list(value)
            held[index] = new()
            message.ClearField(field.name)
            _extend(getattr(message, field.name), held)


def _text(draw: DrawFn, field: Any) -> Any:
    if field.type == field.TYPE_BYTES:
        return draw(st.binary(max_size=40))
    usable = [text for text in TEXTS if text.isascii()]
    return draw(st.one_of(st.sampled_from(usable), st.sampled_from(OPERATORS)))


OPERATORS = ("Loop", "If", "Scan", "Identity", "Expand", "Tile", "Range", "ConstantOfShape", "luvc")


def _set(message: Any, name: str, value: Any) -> None:
    try:
        setattr(message, name, value)
    except ValueError:  # out of the field's range
        message.ClearField(name)


def _extend(field: Any, values: list[Any]) -> None:
    try:
        field.extend(values)
    except ValueError:
        field.extend(values[:1])
