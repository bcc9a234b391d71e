"""The README is executed: its Python example, its tables, its links."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_example_runs(workshop, picture, tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.S)
    (tmp_path / "bundle").symlink_to(workshop.bundle("qwen2").path)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    result = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "visual tokens enter" in result.stdout
    assert "tokens were not run again" in result.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/cpu.md", "docs/triton.md"])
def test_tables_are_those_of_the_results(page):
    script = ROOT / "benchmarks" / "tables.py"
    result = subprocess.run(
        [sys.executable, script, page, "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_a_stale_table_is_noticed(tmp_path):
    copy = tmp_path / "README.md"
    shutil.copy(ROOT / "README.md", copy)
    copy.write_text(copy.read_text().replace("| vision, ms |", "| vision, ms | 1"))
    script = ROOT / "benchmarks" / "tables.py"
    result = subprocess.run([sys.executable, script, copy, "--check"], check=False)
    assert result.returncode == 1


def test_files_the_readme_names_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
    for command in re.findall(r"^\| `(luvc-\w+)", README, re.M):
        assert f"{command} = " in (ROOT / "pyproject.toml").read_text()
