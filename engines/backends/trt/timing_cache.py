"""Kernel times that TensorRT measured while it built, shared by all bundles of this user."""

import contextlib
import shutil
from pathlib import Path

from ....errors import LuvcError
from ....files import user_cache, whole
from ...bundle.manifest import Engine


class TimingCache:
    """A file below the user's cache folder. Builds go on without it where that cannot be used.

    A build works on a copy of its own: trouble with the cache then costs no finished plan.

    Args:
        engine: its backend, version and GPU name the file.
    """

    def __init__(self, engine: Engine):
        self._name = f"timing-{engine.backend}-{engine.version}-{engine.arch}.bin"

    def take(self, draft: Path) -> None:
        """Copy what is known to `draft`; nothing known leaves it as it is."""
        with contextlib.suppress(OSError, RuntimeError):
            shutil.copyfile(user_cache() / self._name, draft)

    def keep(self, draft: Path) -> None:
        """Copy `draft` back, whole or not at all."""
        errors = contextlib.suppress(OSError, RuntimeError, LuvcError)
        with errors, whole(user_cache() / self._name) as ours:
            shutil.copyfile(draft, ours)
