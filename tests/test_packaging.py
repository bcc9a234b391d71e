"""What a wheel holds, and that the code is as clean as its own rules say."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = ("tools", "exporter", "engines", "plugins")  # a room imports only rooms on its right


def test_every_package_is_listed():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = {"luvc"}
    for room in ROOMS:
        for path in ROOT.joinpath(room).rglob("*.*"):
            # the trained pocket model stays in the checkout: a wheel does not carry its weights
            if "__pycache__" not in path.parts and path.parent.name != "model":
                found.add(".".join(["luvc", *path.parent.relative_to(ROOT).parts]))
    assert set(config["tool"]["setuptools"]["packages"]) == found


def test_rooms_import_only_rooms_on_their_right():
    for i, room in enumerate(ROOMS):
        for path in ROOT.joinpath(room).rglob("*.py"):
            depth = len(path.relative_to(ROOT).parts)
            for line in path.read_text().splitlines():
                words = line.split()
                if line.strip().startswith("from " + "." * depth) and len(words) > 1:
                    target = words[1].lstrip(".").split(".")[0]
                    assert target not in ROOMS[:i], f"{path}: {line.strip()}"
    for path in ROOT.joinpath("plugins/spectrum").glob("*.py"):
        assert "from ...engines" not in path.read_text()


def test_files_and_functions_stay_small():
    import ast

    for room in ROOMS:
        for path in ROOT.joinpath(room).rglob("*.py"):
            text = path.read_text()
            assert text.count("\n") <= 300, path
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef):
                    body = (node.end_lineno or 0) - node.lineno + 1
                    doc = ast.get_docstring(node)
                    body -= doc.count("\n") + 1 if doc else 0
                    assert body <= 60, f"{path}:{node.lineno} {node.name} has {body} lines"


def run(*command):
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff():
    run(sys.executable, "-m", "ruff", "check", ".")
    run(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_types():
    run(sys.executable, "-m", "pyright", "--pythonpath", sys.executable)
