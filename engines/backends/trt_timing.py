"""Kernel times that TensorRT measured while it built, shared by all bundles of this user."""

import contextlib
import os
import shutil
from pathlib import Path

from ..manifest import Engine


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
            shutil.copyfile(_folder() / self._name, draft)

    def keep(self, draft: Path) -> None:
        """Copy `draft` back, whole or not at all."""
        with contextlib.suppress(OSError, RuntimeError):
            folder = _folder()
            folder.mkdir(parents=True, exist_ok=True)
            ours = folder / f"{self._name}.{os.getpid()}"  # other processes keep theirs
            try:
                shutil.copyfile(draft, ours)
                ours.replace(folder / self._name)
            finally:
                ours.unlink(missing_ok=True)


def _folder() -> Path:
    """Where it lies; RuntimeError for a user without a home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "luvc-export"
