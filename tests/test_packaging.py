"""What a wheel holds and needs, and that linter, formatter and type checker agree."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

from .sources import ROOMS, ROOT, Source, sources


def test_every_package_is_listed():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = {"luvc"}
    for room in ROOMS:
        for path in ROOT.joinpath(room).rglob("*.*"):
            # the trained pocket models stay in the checkout: a wheel does not carry their weights
            if "__pycache__" not in path.parts and path.parent.name not in ("model", "hd"):
                found.add(".".join(["luvc", *path.parent.relative_to(ROOT).parts]))
    assert set(config["tool"]["setuptools"]["packages"]) == found


def imports(source: Source) -> set[str]:
    """What a file imports by its full name, also late."""
    found = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
    return found


def test_whatever_is_imported_is_installed_with_the_product_or_an_extra():
    """What only the tests install is missing for everybody else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(x for k, v in extras.items() if k != "test" for x in v)]
    names = {re.split(r"[^\w-]", text)[0].lower().replace("_", "-") for text in wanted}
    # jinja2 brings markupsafe; Triton's server is the last one's home
    names |= {"luvc", "markupsafe", "triton-python-backend-utils"}
    homes = packages_distributions()
    for source in sources():
        if source.room not in (*ROOMS, ""):
            continue
        for module in imports(source) - sys.stdlib_module_names:
            known = {d.lower().replace("_", "-") for d in homes.get(module, [module])}
            known.add(module.replace("_", "-"))
            assert known & names, f"{source.path} imports {module}"


def run(*command):
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff():
    run(sys.executable, "-m", "ruff", "check", ".")
    run(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_types():
    run(sys.executable, "-m", "tests.check_types")
