"""From a Triton request's inputs to what the scheduler takes; everything a client sends is checked here.

Texts of a client are never taken as paths: a picture is what was sent with the request.
"""

import contextlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import strict_json
from ...engines.data_urls import from_base64
from ...engines.pictures import image_source
from ...errors import LuvcError

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


def read(tensor: Callable[[str], np.ndarray | None], bounds: Bounds) -> Asked:
    """Read a request.

    Args:
        tensor: input name -> its array, or None where the client sent none.
        bounds: of the pictures.

    Raises:
        LuvcError: what was sent cannot be read, or nothing was asked.
    """
    images = [_picture(data, bounds) for data in _texts(tensor, "image")]
    text, messages = _text(tensor, "text_input"), _text(tensor, "messages")
    if (text is None) == (messages is None):
        raise LuvcError("send either text_input or messages, a JSON list of messages")
    if messages is not None:
        turns = _messages(messages, images, bounds)
    else:
        parts = [{"type": "image", "image": image} for image in images]
        turns = [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
    options = {ours: _number(tensor, theirs) for theirs, ours in OPTIONS.items()}
    stops = [s.decode("utf-8", "replace") for s in _texts(tensor, "stop")]
    options["stop"] = tuple(stops) or None
    options["layout"] = _text(tensor, "layout") or None
    given = {name: value for name, value in options.items() if value is not None}
    return Asked(turns, _text(tensor, "session") or None, bool(_number(tensor, "stream")), given)


def _texts(tensor, name: str) -> list[bytes]:
    array = tensor(name)
    values = [] if array is None else array.reshape(-1).tolist()
    return [v.encode() if isinstance(v, str) else v for v in values]


def _text(tensor, name: str) -> str | None:
    values = _texts(tensor, name)
    try:
        return values[0].decode() if values else None
    except UnicodeDecodeError as error:
        raise LuvcError(f"{name} is not UTF-8: {error}") from error


def _number(tensor, name: str) -> Any:
    array = tensor(name)
    return None if array is None else array.reshape(-1)[0].item()


def _picture(data: bytes, bounds: Bounds) -> Any:
    """A PIL image from the bytes of a file, from their base64 or from a data: URL."""
    from PIL import Image, UnidentifiedImageError

    most = bounds.image_mib << 20
    if len(data) > most * 3 // 2:
        raise LuvcError(_too_large(len(data), bounds))
    if data[:64].isascii():  # perhaps base64
        with contextlib.suppress(LuvcError):  # then it is the file itself, or refused below
            data = from_base64(data)
    if len(data) > most:
        raise LuvcError(_too_large(len(data), bounds))
    try:
        image = Image.open(io.BytesIO(data))  # the header; the rest is decoded while preparing
    except Image.DecompressionBombError as error:
        raise LuvcError(f"the image is too large: {error}; scale it down first") from error
    except UnidentifiedImageError as error:
        raise LuvcError(
            f"the image is not one ({len(data)} bytes of no known format): send the bytes of a PNG or "
            "JPEG file, or their base64"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise LuvcError(f"the image cannot be read: {error}") from error
    if image.width * image.height > bounds.megapixels * 1e6:
        raise LuvcError(
            f"the image has {image.width}x{image.height} pixels, the limit is {bounds.megapixels} "
            "megapixels; scale it down first"
        )
    return image


def _too_large(size: int, bounds: Bounds) -> str:
    return f"the image has {size / 2**20:.0f} MiB, the limit is {bounds.image_mib} MiB; scale it down first"


def _messages(text: str, images: list[Any], bounds: Bounds) -> list[dict[str, Any]]:
    """Messages of a JSON text, the request's pictures in the places that carry none themselves."""
    try:
        messages = strict_json.parse(text)
    except ValueError as error:
        raise LuvcError(f"messages is not valid JSON: {error}") from error
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise LuvcError("messages must be a JSON list of {'role': ..., 'content': ...}")
    left = list(images)
    for message in messages:
        if isinstance(message.get("content"), list):
            message["content"] = [_part(part, left, bounds) for part in message["content"]]
    if left and len(left) == len(images):  # no place was named: before the first user's text
        first = next((m for m in messages if m.get("role") == "user"), None)
        if first is not None:
            content = first.get("content")
            rest = content if isinstance(content, list) else [{"type": "text", "text": content}]
            first["content"] = [*({"type": "image", "image": i} for i in left), *rest]
            left = []
    if left:
        raise LuvcError(
            f"{len(images)} images were sent, messages have places for {len(images) - len(left)}"
        )
    return messages


def _part(part: Any, left: list[Any], bounds: Bounds) -> Any:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text":
        return part
    if kind not in ("image", "image_url"):  # others, such as videos, the processor takes from paths
        raise LuvcError(
            f"a part of messages is of type 'text', 'image' or 'image_url', got {part!r:.80}"
        )
    source = image_source(part)
    if source is None:
        if not left:
            raise LuvcError("messages have more image parts than images were sent")
        return {"type": "image", "image": left.pop(0)}
    if not isinstance(source, str):
        raise LuvcError("an image in messages is a base64 string")
    if source.startswith(("http://", "https://", "file://")):
        raise LuvcError("an image in messages is a base64 string; this server fetches none")
    return {"type": "image", "image": _picture(source.encode(), bounds)}
