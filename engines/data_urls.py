"""Files inside texts: base64 as it is found in requests, and data: URLs (RFC 2397)."""

import base64
import re
from urllib.parse import unquote_to_bytes

from ..errors import LuvcError

SCHEME = b"data:"
BLANKS = b" \t\r\n\f"
URL_SAFE = bytes.maketrans(b"-_", b"+/")


def is_data_url(text: str | bytes) -> bool:
    """Whether a text begins like a data: URL, in small letters or capitals."""
    start = text[: len(SCHEME)]
    return (start.encode("ascii", "replace") if isinstance(start, str) else start).lower() == SCHEME


def from_base64(text: str | bytes) -> bytes:
    """The bytes behind base64 or behind a data: URL, as browsers take them.

    Blanks and line ends inside, the URL-safe alphabet, percent signs and missing padding are all right
    (https://infra.spec.whatwg.org/#forgiving-base64, and RFC 4648, section 5). A data: URL without
    `;base64` holds its bytes percent-encoded.

    Raises:
        LuvcError: it is something else.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
    if is_data_url(data):
        head, comma, data = data.partition(b",")
        if not comma:
            raise LuvcError("a data: URL needs a comma before its data")
        if not head.translate(None, BLANKS).lower().endswith(b";base64"):
            return unquote_to_bytes(data)
    return _decode(unquote_to_bytes(data))


def _decode(data: bytes) -> bytes:
    digits = data.translate(URL_SAFE, BLANKS)
    padding = len(digits) - len(digits.rstrip(b"="))
    if padding and (padding > 2 or len(digits) % 4):
        raise LuvcError(f"not base64: {padding} padding signs after {len(digits) - padding} digits")
    digits = digits.rstrip(b"=")
    other = re.search(rb"[^A-Za-z0-9+/]", digits)
    if other:
        raise LuvcError(f"not base64: {other.group()!r} stands at digit {other.start()}")
    if len(digits) % 4 == 1:
        raise LuvcError(f"not base64: {len(digits)} digits are no whole number of bytes")
    return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
