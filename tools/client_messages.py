"""Messages of clients: texts, and pictures as base64 or data: URLs, checked before they are decoded.

Texts of a client are never taken as paths: a picture is what was sent with the request.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..engines.data_urls import from_base64
from ..engines.prompt.messages import read_part
from ..engines.prompt.pictures import check_size, image_source
from ..errors import LuvcError, brief


@dataclass(frozen=True)
class Bounds:
    """Largest picture a client may send, as a file and when it is decoded."""

    image_mib: int = 16
    megapixels: int = 50


def check_count(count: int, most: int) -> None:
    """Refuse more pictures than any prompt takes before one of them is looked at."""
    if count > most:
        raise LuvcError(f"the request has {count} images, this model takes {most} at most")


def picture(data: bytes, bounds: Bounds) -> Any:
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


Fetch = Callable[[str], bytes]
"""The bytes behind an http(s) URL."""


def place_pictures(
    messages: Any,
    bounds: Bounds,
    images: int,
    sent: list[Any] | None = None,
    fetch: Fetch | None = None,
) -> list[dict[str, Any]]:
    """A client's messages, with their pictures opened.

    Args:
        messages: of parsed JSON; changed in place.
        bounds: of the pictures.
        images: most pictures that a prompt of the bundle takes.
        sent: pictures that came apart, for image parts that carry none themselves; without such parts
            they stand before the first user's text.
        fetch: of pictures that a URL names; None refuses them.

    Raises:
        LuvcError: not a list of messages, or a part or picture that cannot be taken.
    """
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise LuvcError("messages must be a JSON list of {'role': ..., 'content': ...}")
    sent = sent or []
    contents = [m["content"] for m in messages if isinstance(m.get("content"), list)]
    check_count(sum(_is_image(part) for content in contents for part in content), images)
    left = list(sent)
    for message in messages:
        if isinstance(message.get("content"), list):
            message["content"] = [_part(part, left, bounds, fetch) for part in message["content"]]
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


def _part(part: Any, left: list[Any], bounds: Bounds, fetch: Fetch | None) -> Any:
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
        if fetch is None or source.lower().startswith("file:"):
            raise LuvcError("an image in messages is a base64 string; this server fetches none")
        return {"type": "image", "image": picture(fetch(source), bounds)}
    return {"type": "image", "image": picture(source.encode("utf-8", "surrogatepass"), bounds)}
