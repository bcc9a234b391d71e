"""From a Triton request's inputs to what the scheduler takes; everything a client sends is checked here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import strict_json
from ...engines.sampling import STOPS
from ...errors import LuvcError, brief
from ..client_messages import Bounds, check_count, picture, place_pictures

OPTIONS = {
    "max_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "repetition_penalty": "repetition_penalty",
    "seed": "seed",
    "ratio": "ratio",
    "image_tokens": "image_tokens",
}


@dataclass(frozen=True)
class Asked:
    """A request as the scheduler takes it, and whether pieces of the answer are sent as they come."""

    messages: list[dict[str, Any]]
    session: str | None
    stream: bool
    options: dict[str, Any]


def read(tensor: Callable[[str], np.ndarray | None], bounds: Bounds, images: int) -> Asked:
    """Read a request.

    Args:
        tensor: input name -> its array, or None where the client sent none.
        bounds: of the pictures.
        images: most pictures that a prompt of the bundle takes.

    Raises:
        LuvcError: what was sent cannot be read, or nothing was asked.
    """
    found = _texts(tensor, "image")
    check_count(len(found), images)
    sent = [picture(data, bounds) for data in found]
    text, messages = _text(tensor, "text_input"), _text(tensor, "messages")
    if (text is None) == (messages is None):
        raise LuvcError("send either text_input or messages, a JSON list of messages")
    if messages is not None:
        turns = place_pictures(_messages(messages), bounds, images, sent)
    else:
        parts = [{"type": "image", "image": image} for image in sent]
        turns = [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
    options = {ours: _number(tensor, theirs) for theirs, ours in OPTIONS.items()}
    options["stop"] = _stops(tensor)
    options["layout"] = _text(tensor, "layout") or None
    given = {name: value for name, value in options.items() if value is not None}
    return Asked(turns, _text(tensor, "session") or None, bool(_number(tensor, "stream")), given)


def _texts(tensor, name: str) -> list[bytes]:
    array = tensor(name)
    values = [] if array is None else array.reshape(-1).tolist()
    if not all(isinstance(v, (str, bytes)) for v in values):
        raise LuvcError(f"{name} must be of the type BYTES")
    return [v.encode() if isinstance(v, str) else v for v in values]


def _text(tensor, name: str) -> str | None:
    values = _texts(tensor, name)
    if len(values) > 1:
        raise LuvcError(f"{name} has {len(values)} values; send one")
    return _utf8(values[0], name) if values else None


def _utf8(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise LuvcError(f"{name} is not UTF-8: {brief(error)}") from error


def _stops(tensor) -> tuple[str, ...] | None:
    array = tensor("stop")
    if array is not None and array.size > STOPS:
        raise LuvcError(f"stop has {array.size} texts, the limit is {STOPS}")
    return tuple(_utf8(value, "stop") for value in _texts(tensor, "stop")) or None


def _number(tensor, name: str) -> Any:
    array = tensor(name)
    if array is None:
        return None
    if array.size != 1:
        raise LuvcError(f"{name} has {array.size} values; send one, or leave it out")
    (value,) = array.reshape(-1).tolist()
    if not isinstance(value, bool | int | float):
        raise LuvcError(f"{name} must be a number, not of the type BYTES")
    return value


def _messages(text: str) -> Any:
    try:
        return strict_json.parse(text)
    except ValueError as error:
        raise LuvcError(f"messages is not valid JSON: {brief(error)}") from error
