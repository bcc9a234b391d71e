"""Runs Python in a process where torchvision can be imported, also beside a CPU build of PyTorch.

    pip install --no-deps --target DIR torchvision==0.28.0
    LUVC_TORCHVISION=DIR python with_torchvision.py -m some.module arguments...

PyPI's torchvision is linked with CUDA. Beside PyTorch for the CPU its compiled operators do not load, and
`import torchvision` then ends in "operator torchvision::nms does not exist". Image and video processors
use none of the compiled operators: it is enough that the two names exist.
"""

import importlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = "LUVC_TORCHVISION"


def import_torchvision() -> None:
    """Import torchvision, declaring the operators whose library does not load.

    transformers looks for torchvision once, when it is imported itself: call this before.
    """
    import torch

    sys.path.append(os.environ.get(FOLDER, ""))
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor"
            )
        importlib.import_module("torchvision")


def python(*arguments: str) -> subprocess.CompletedProcess:
    """Run `python arguments...` with torchvision, from the repository root."""
    return subprocess.run(
        [sys.executable, __file__, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def torchvision_or_skip() -> None:
    """Skip the test where there is no torchvision to be had."""
    import importlib.util

    import pytest

    if not (importlib.util.find_spec("torchvision") or os.environ.get(FOLDER)):
        pytest.skip(
            f"no torchvision: pip install --no-deps --target DIR torchvision==0.28.0 and set {FOLDER}=DIR"
        )


def main() -> None:
    """Run a module (-m name) or code (-c text) with the arguments that follow."""
    kind, what, *rest = sys.argv[1:]
    sys.path.insert(0, os.getcwd())
    import_torchvision()
    sys.argv = [what, *rest]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    elif kind == "-c":
        exec(compile(what, "<command>", "exec"), {"__name__": "__main__"})
    else:
        raise SystemExit("usage: with_torchvision.py (-m module | -c code) arguments...")


if __name__ == "__main__":
    del sys.path[0]  # this folder; its modules are imported as a package
    main()
