"""The README is executed: its Python example, its tables, its links."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from luvc.exporter.config import read_schedule

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


ASKING, SERVING, EXPORTING = re.findall(r"```python\n(.*?)```", README, re.S)


def printed(example: str, folder: Path) -> str:
    """What an example prints in a folder."""
    result = subprocess.run(
        [sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_example_that_asks_runs(workshop, picture, tmp_path):
    (tmp_path / "bundle").symlink_to(workshop.bundle("qwen2").path)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    out = printed(ASKING, tmp_path)
    assert "visual tokens enter" in out and "tokens were not run again" in out


def test_the_example_that_serves_runs(workshop, picture, tmp_path):
    (tmp_path / "bundle").symlink_to(workshop.bundle("qwen2").path)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    assert printed(ASKING + SERVING, tmp_path).splitlines()[-1].endswith(("length", "stop"))


def test_the_example_that_exports_runs(workshop, tmp_path):
    checkpoint = workshop.checkpoint(layers=8, vision_layers=2, image=336)
    (tmp_path / "checkpoint").symlink_to(checkpoint)
    assert "prefill=2.0" in printed(EXPORTING, tmp_path)


def test_the_schedule_that_readme_shows_is_one(tmp_path):
    text = re.search(r"`(\{\"vision\".*?\})`", README, re.S)
    assert text
    file = tmp_path / "schedule.json"
    file.write_text(text[1])
    assert len(read_schedule(file).language) == 2


@pytest.mark.parametrize(
    "page", ["README.md", "docs/cpu.md", "docs/triton.md", "tools/pocket/README.md"]
)
def test_tables_are_those_of_the_results(page):
    command = [sys.executable, "-m", "benchmarks.tables", page, "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_stale_table_is_noticed(tmp_path):
    copy = tmp_path / "README.md"
    shutil.copy(ROOT / "README.md", copy)
    copy.write_text(copy.read_text().replace("| vision, ms |", "| vision, ms | 1"))
    command = [sys.executable, "-m", "benchmarks.tables", copy, "--check"]
    result = subprocess.run(command, cwd=ROOT, check=False)
    assert result.returncode == 1


def test_files_the_readme_names_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
    for command in re.findall(r"^\| `(luvc-\w+)", README, re.M):
        assert f"{command} = " in (ROOT / "pyproject.toml").read_text()
