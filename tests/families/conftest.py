"""The gallery of the families, shared by all test processes, and a record of what ran.

LUVC_GALLERY=FOLDER keeps checkpoints and bundles between runs while you work on tests; delete the folder
after a change to the exporter. LUVC_CELLS=FILE appends a line for each cell of docs/families.md that
passed (table.py).
"""

import json
import os
from pathlib import Path

import pytest

from .gallery import Gallery
from .table import NAMED


@pytest.fixture(scope="session")
def gallery(workshop) -> Gallery:
    return Gallery(Path(os.environ.get("LUVC_GALLERY") or workshop.root / "families"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    marker, file = item.get_closest_marker("cell"), os.environ.get("LUVC_CELLS")
    if marker and file and report.when == "call" and report.passed:
        named = {k: v for k, v in item.callspec.params.items() if k in NAMED}
        line = json.dumps({"name": next(iter(named.values())), "cell": marker.args[0]})
        with open(file, "a") as f:  # one short line: whole also with several processes
            f.write(f"{line}\n")
