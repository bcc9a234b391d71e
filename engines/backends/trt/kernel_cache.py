"""Kernels that TensorRT-RTX compiles while it runs, kept beside the plans for the next process."""

import contextlib
import re
from pathlib import Path
from time import monotonic
from typing import Any

from ....errors import LuvcError
from ....files import whole

SECONDS = 60.0  # between two saves of a process that goes on compiling


def cache_name(cuda: Any) -> str:
    """File name: one for each GPU model, since the library refuses the kernels of another."""
    model = re.sub(r"[^A-Za-z0-9]+", "-", cuda.name).strip("-")
    return f"runtime-{cuda.arch}-{model}.cache"  # written at run time, so not in the manifest


class CompiledKernels:
    """The library's runtime cache and its file.

    Args:
        cache: the library's IRuntimeCache; takes what the file holds, unless that is of another
            version or driver.
        path: the file, which need not exist.
    """

    def __init__(self, cache: Any, path: Path):
        self.cache, self.path = cache, path
        self._unsaved, self._saved_at = False, monotonic()
        if path.is_file():
            cache.deserialize(path.read_bytes())

    def grow(self) -> None:
        """Note that kernels are compiled which the file does not hold."""
        self._unsaved = True

    def keep(self) -> None:
        """Save what is new, at most once a minute."""
        if self._unsaved and monotonic() - self._saved_at >= SECONDS:
            self.save()

    def close(self) -> None:
        """Save what is new."""
        if self._unsaved:
            self.save()

    def save(self) -> None:
        """Write the file; a read-only bundle goes without."""
        self._unsaved, self._saved_at = False, monotonic()
        with contextlib.suppress(OSError, LuvcError), whole(self.path) as draft:
            draft.write_bytes(bytes(self.cache.serialize()))
