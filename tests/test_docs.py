"""The documentation is executed: its Python, its tables, its links, and the names of files in it."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from luvc import __version__
from luvc.engines.bundle.schedule import Schedule
from luvc.exporter.planning.schedule_file import read_schedule
from luvc.tools.demo import architecture, methods_page

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "tools/**/*.md")
    for path in ROOT.glob(pattern)
)
WITH_TABLES = (
    "README.md",
    "docs/cpu.md",
    "docs/serving.md",
    "docs/speed.md",
    "tools/pocket/README.md",
)
ROOMS = "exporter|engines|plugins|tools|tests|benchmarks|examples|docs"


def python_of(page: Path) -> list[str]:
    """The Python of a page, as its fences hold it."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M)


def ran(code: str, folder: Path) -> str:
    """What code prints in a folder."""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def anchors(page: Path) -> set[str]:
    """What links may name after # in a page: its headings as code hosts write them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    plain = (re.sub(r"[^\w\- ]", "", h).lower() for h in re.findall(r"^#+ (.*)$", text, re.M))
    return {h.replace(" ", "-") for h in plain}


def test_asking_and_serving_from_python(workshop, picture, tmp_path):
    (tmp_path / "bundle").symlink_to(workshop.bundle("qwen2").path)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    code = python_of(DOCS / "python.md") + python_of(DOCS / "serving.md")
    assert len(code) == 5
    out = ran("\n".join(code), tmp_path)
    assert "visual tokens enter" in out and "tokens were not run again" in out
    assert out.splitlines()[-1].endswith(("length", "stop"))


def test_exporting_from_python(workshop, tmp_path):
    checkpoint = workshop.checkpoint(layers=8, vision_layers=2, image=336)
    (tmp_path / "checkpoint").symlink_to(checkpoint)
    (code,) = python_of(DOCS / "export.md")
    assert "prefill=2.0" in ran(code, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_python_imports_is_there(page):
    for code in python_of(page):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("luvc"):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    assert hasattr(module, alias.name), ast.unparse(node)


def test_the_schedule_that_is_shown_is_one(tmp_path):
    (text,) = re.findall(r"```json\n(.*?)```", (DOCS / "export.md").read_text(), re.S)
    file = tmp_path / "schedule.json"
    file.write_text(text)
    found = read_schedule(file)
    assert isinstance(found, Schedule) and len(found.language) == 2


@pytest.mark.parametrize("page", WITH_TABLES)
def test_tables_are_those_of_the_results(page):
    command = [sys.executable, "-m", "benchmarks.tables", page, "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_page_with_tables_is_checked():
    marked = {p.relative_to(ROOT).as_posix() for p in PAGES if "\n<!-- table:" in p.read_text()}
    assert marked == set(WITH_TABLES)
    (pages,) = re.findall(r"^PAGES := (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert set(pages.split()) == set(WITH_TABLES)


def test_a_stale_table_is_noticed(tmp_path):
    copy = tmp_path / "README.md"
    shutil.copy(ROOT / "README.md", copy)
    copy.write_text(copy.read_text().replace("| vision, ms |", "| vision, ms | 1"))
    command = [sys.executable, "-m", "benchmarks.tables", copy, "--check"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_are_named_exist(page):
    for name in re.findall(rf"`((?:{ROOMS})/[\w./-]+)`", page.read_text()):
        # a file, or a module of it: `exporter/planning/solver.py`
        assert (ROOT / name).exists(), name


def test_every_command_has_a_line():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    page = (DOCS / "commands.md").read_text()
    assert set(re.findall(r"^\| `(luvc-\w+)", page, re.M)) == set(scripts)


def test_every_extra_has_a_line():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (DOCS / "install.md").read_text()
    listed = set(re.findall(r"^\| `(\w+)` \|", page, re.M))
    assert listed | {"docs"} == set(
        project["optional-dependencies"]
    )  # eval is docs by a better name


def test_hooks_run_what_the_tests_run():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall("repo: (.*)", hooks) == ["local"]  # nothing is downloaded
    entries = re.findall("entry: .*python -m (.*)", hooks)
    assert entries == ["ruff check .", "ruff format --check .", "tests.check_types"]


def test_the_changelog_says_what_this_version_is():
    text = (ROOT / "CHANGELOG.md").read_text()
    version, date = re.findall(r"^## \[([\d.]+)\] - (\d{4}-\d\d-\d\d)$", text, re.M)[0]
    assert version == __version__ and date
    assert set(re.findall("^### (.*)$", text, re.M)) <= {"Added", "Changed", "Removed", "Fixed"}


@pytest.mark.skipif(find_spec("sphinx") is None, reason="the extra `site` is not installed")
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", DOCS, tmp_path]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "VLM" in (tmp_path / "api" / "engines.html").read_text()


def test_the_picture_of_the_rooms_is_fresh():
    fresh = architecture.draw()
    assert (DOCS / "architecture.svg").read_text() == fresh, "run `make docs`"


def test_the_ways_of_the_data_are_rooms():
    assert set(architecture.EXPORT + architecture.RUN) <= set(architecture.imports())
    for room in architecture.EXPORT + architecture.RUN:
        assert (ROOT / room).is_dir(), room


def test_the_page_of_methods_is_what_the_methods_say():
    written = (DOCS / "methods.md").read_text()
    assert written == methods_page.page(), "python -m luvc.tools.demo.methods_page docs/methods.md"
