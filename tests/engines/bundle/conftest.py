"""What the bundle tests share."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def copy(workshop, tmp_path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(workshop.bundle("qwen2").path, tmp_path / "bundle"))
