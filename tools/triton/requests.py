"""From a Triton request's inputs to what the scheduler takes; everything a client sends is checked here.

Texts of a client are never taken as paths: a picture is what was sent with the request.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import strict_json
from ...engines.data_urls import from_base64
from ...engines.prompt.messages import read_part
from ...engines.prompt.pictures import check_size, image_source
from ...engines.sampling import STOPS
from ...errors import LuvcError, brief

OPTIONS = {
    "max_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "repetition_penalty": "repetition_penalty",
    "seed": "seed",
}


@dataclass(frozen=True)
class Bounds:
    """Largest picture a client may send, as a file and when it is decoded."""

    image_mib: int = 16
    megapixels: int = 50


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
    _check_count(len(found), images)
    sent = [_picture(data, bounds) for data in found]
    text, messages = _text(tensor, "text_input"), _text(tensor, "messages")
    if (text is None) == (messages is None):
        raise LuvcError("send either text_input or messages, a JSON list of messages")
    if messages is not None:
        turns = _messages(messages, sent, bounds, images)
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
    return array.reshape(-1)[0].item()


def _check_count(count: int, most: int) -> None:
    """Refuse more pictures than any prompt takes before one of them is looked at."""
    if count > most:
        raise LuvcError(f"the request has {count} images, this model takes {most} at most")


def _picture(data: bytes, bounds: Bounds) -> Any:
    """A PIL image from the bytes of a file, from their base64 or from a data: URL."""
    from PIL import Image, UnidentifiedImageError

    most = bounds.image_mib << 20
    if len(data) > most * 3 // 2:
        raise LuvcError(_too_large(len(data), bounds))
    why = ""
    if data[:64].isascii():  # perhaps base64
        try:
            data = from_base64(data)
        except LuvcError as error:  # then it is the file itself, or refused below
            why = f"{error}, and "
    if len(data) > most:
        raise LuvcError(_too_large(len(data), bounds))
    try:
        image = Image.open(io.BytesIO(data))  # the header; the rest is decoded while preparing
    except Image.DecompressionBombError as error:
        raise LuvcError(f"the image is too large: {error}; scale it down first") from error
    except UnidentifiedImageError as error:
        raise LuvcError(
            f"the image is not one ({why}{len(data)} bytes of no known format): send the bytes of a PNG "
            "or JPEG file, or their base64"
        ) from error
    except Exception as error:  # decoders raise what they like
        raise LuvcError(f"the image cannot be read: {brief(error)}") from error
    check_size(image.size, bounds.megapixels)
    return image


def _too_large(size: int, bounds: Bounds) -> str:
    return f"the image has {size / 2**20:.0f} MiB, the limit is {bounds.image_mib} MiB; scale it down first"


def _messages(text: str, sent: list[Any], bounds: Bounds, images: int) -> list[dict[str, Any]]:
    """Messages of a JSON text, the request's pictures in the places that carry none themselves."""
    try:
        messages = strict_json.parse(text)
    except ValueError as error:
        raise LuvcError(f"messages is not valid JSON: {brief(error)}") from error
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise LuvcError("messages must be a JSON list of {'role': ..., 'content': ...}")
    contents = [m["content"] for m in messages if isinstance(m.get("content"), list)]
    _check_count(sum(_is_image(part) for content in contents for part in content), images)
    left = list(sent)
    for message in messages:
        if isinstance(message.get("content"), list):
            message["content"] = [_part(part, left, bounds) for part in message["content"]]
    if left and len(left) == len(sent):  # no place was named: before the first user's text
        first = next((m for m in messages if m.get("role") == "user"), None)
        if first is not None:
            content = first.get("content")
            rest = content if isinstance(content, list) else [{"type": "text", "text": content}]
            first["content"] = [*({"type": "image", "image": i} for i in left), *rest]
            left = []
    if left:
        raise LuvcError(
            f"{len(sent)} images were sent, messages have places for {len(sent) - len(left)}"
        )
    return messages


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in ("image", "image_url")


def _part(part: Any, left: list[Any], bounds: Bounds) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in ("text", "image", "image_url"):  # others, such as videos, are taken from paths
        raise LuvcError(
            f"a part of messages is of type 'text', 'image' or 'image_url', got {part!r:.80}"
        )
    part = read_part(part)
    if kind == "text":
        return part
    source = image_source(part)
    if source is None:
        if not left:
            raise LuvcError("messages have more image parts than images were sent")
        return {"type": "image", "image": left.pop(0)}
    if not isinstance(source, str):
        raise LuvcError("an image in messages is a base64 string")
    if source.lower().startswith(("http://", "https://", "file://")):
        raise LuvcError("an image in messages is a base64 string; this server fetches none")
    return {"type": "image", "image": _picture(source.encode("utf-8", "surrogatepass"), bounds)}
