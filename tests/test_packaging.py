"""What a wheel holds, and that the code is as clean as its own rules say."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
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


def imports(path):
    """Modules that a file imports absolutely, also late."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).split(".")[0]


def test_whatever_is_imported_is_installed_with_the_product_or_an_extra():
    """What only the tests install is missing for everybody else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(x for k, v in extras.items() if k != "test" for x in v)]
    names = {re.match(r"[\w-]+", text)[0].lower().replace("_", "-") for text in wanted}
    # jinja2 brings markupsafe; Triton's server is the last one's home
    names |= {"luvc", "markupsafe", "triton-python-backend-utils"}
    homes = packages_distributions()
    files = [*ROOT.glob("*.py"), *(p for room in ROOMS for p in ROOT.joinpath(room).rglob("*.py"))]
    for path in files:
        for module in set(imports(path)) - set(sys.stdlib_module_names):
            known = {d.lower().replace("_", "-") for d in homes.get(module, [module])}
            known.add(module.replace("_", "-"))
            assert known & names, f"{path.relative_to(ROOT)} imports {module}"


def test_files_and_functions_stay_small():
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
