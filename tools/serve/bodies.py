"""Whether a client may ask, the body that it sends, within its bounds, and the picture that it is about."""

import asyncio
import hashlib
import hmac

from starlette.requests import Request

from ... import strict_json
from .chat_request import BadRequest
from .settings import Settings

READ_PAST = 4
"""How many times its limit a body is read and thrown away, so that its client reads why."""


def may_ask(request: Request, key: str | None) -> bool:
    """Whether a request has the API key, if there is one."""
    sent = request.headers.get("authorization", "").removeprefix("Bearer ")
    return key is None or hmac.compare_digest(sent.encode(), key.encode())


async def read_body(request: Request, settings: Settings) -> bytes:
    """A request's body.

    Raises:
        BadRequest: too large, or too slow.
    """
    most = settings.body_mib << 20
    came = 0
    data = bytearray()
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for chunk in request.stream():
                came += len(chunk)
                if came <= most:
                    data += chunk
                elif came > READ_PAST * most:  # clients that still write read no reply
                    break
    except TimeoutError as e:
        raise BadRequest(
            f"the body did not come within {settings.body_seconds:g} seconds", status=408
        ) from e
    if came > most:
        raise BadRequest(
            f"the body has more than {settings.body_mib} MiB, the limit: scale the pictures down",
            status=413,
        )
    return bytes(data)


def picture_key(body: bytes) -> str:
    """What tells the first picture of a request from others; empty where there is none.

    A conversation keeps its first picture, so its turns come to one replica.

    Args:
        body: of any request, read no further than this needs.
    """
    try:
        data = strict_json.parse(body)
        turns = data["messages"] if isinstance(data, dict) else []
        contents = (turn.get("content") for turn in turns)
        parts = (part for content in contents if isinstance(content, list) for part in content)
        urls = (part["image_url"] for part in parts if part.get("type") == "image_url")
        url = next(urls, None)
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""  # no request that is answered: any replica says why
    url = url.get("url") if isinstance(url, dict) else url
    return hashlib.sha256(url.encode(errors="replace")).hexdigest() if isinstance(url, str) else ""
