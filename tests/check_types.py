"""pyright over everything: `python -m tests.check_types`.

The repository's root is the package `luvc`. The editable install says so by an import hook, which a type
checker does not run: it is given a folder (pyproject.toml's extraPaths) where a link has that name.
"""

import contextlib
import subprocess
import sys

from .sources import ROOT

LINK = ROOT / "build" / "pyright" / "luvc"


def main() -> int:
    LINK.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        LINK.symlink_to("../..", target_is_directory=True)
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
