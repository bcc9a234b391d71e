"""Pictures that a client names by an http(s) URL: fetched from listed hosts alone, and never further."""

import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from ...errors import LuvcError, brief, printable

TIMEOUT = 10.0
"""Seconds without a byte."""
CHUNK = 1 << 16


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A listed host must not lead to one that is not."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse every redirect: the opener then raises its HTTPError."""


class RemotePictures:
    """Fetches pictures.

    Args:
        hosts: names (with ":port" where it is not the usual one) that may be asked; none: all are refused.
        image_mib: largest file.
    """

    def __init__(self, hosts: Sequence[str], image_mib: int):
        self._hosts = {host.lower() for host in hosts}
        self._most = image_mib << 20
        # no proxies of the environment: the list says what is asked
        proxies = urllib.request.ProxyHandler({})
        self._opener = urllib.request.build_opener(proxies, _NoRedirect())

    def __call__(self, url: str) -> bytes:
        """The bytes behind a URL.

        Raises:
            LuvcError: its host is not listed, it cannot be fetched, or it is too large.
        """
        shown = printable(url, 200)
        try:
            parts = urlsplit(url)
            host, secret = parts.netloc.lower(), parts.username or parts.password
        except ValueError as e:
            raise LuvcError(f"the image URL {shown} is none: {brief(e)}") from e
        if secret or host not in self._hosts:
            raise LuvcError(
                f"the image URL {shown} is not of a host that this server fetches from: send the picture "
                "as a data: URL, or start the server with --image-host"
            )
        try:
            with self._opener.open(url, timeout=TIMEOUT) as response:
                return self._read(response, shown)
        except LuvcError:
            raise
        except (OSError, ValueError, urllib.error.URLError) as e:
            raise LuvcError(f"the image URL {shown} cannot be fetched: {brief(e)}") from e

    def _read(self, response: Any, shown: str) -> bytes:
        data = bytearray()
        while chunk := response.read(CHUNK):
            data += chunk
            if len(data) > self._most:
                raise LuvcError(
                    f"the image URL {shown} has more than {self._most >> 20} MiB, the limit; scale it down"
                )
        return bytes(data)
