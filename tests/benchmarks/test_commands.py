"""Every benchmark is a module of the checkout, and says how it is started."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.joinpath("benchmarks").rglob("*.py"))
PEERS = ROOT / "benchmarks" / "peers"


def module(path):
    """Its name for `python -m`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")


COMMANDS = [p for p in FILES if '\nif __name__ == "__main__":\n' in p.read_text()]
OURS = [module(p) for p in COMMANDS if p.name != "openvino_system.py"]  # it takes a request


def test_the_commands_are_found():
    assert {"benchmarks.cpu", "benchmarks.accuracy", "benchmarks.gpu.run"} < set(OURS)


@pytest.mark.parametrize("name", OURS)
def test_a_command_describes_itself(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    for known in [m for m in sys.modules if m == name]:
        monkeypatch.delitem(sys.modules, known)  # run_module warns of what is imported already
    with pytest.raises(SystemExit) as end:
        runpy.run_module(name, run_name="__main__", alter_sys=False)
    assert end.value.code == 0 and "Usage" in capsys.readouterr().out


@pytest.mark.parametrize("path", COMMANDS, ids=module)
def test_a_command_is_written_down_as_it_is_typed(path):
    assert f"python -m {module(path)}" in (ast.get_docstring(ast.parse(path.read_text())) or "")


def test_no_benchmark_changes_where_python_looks():
    assert not [path for path in FILES if "sys.path" in path.read_text()]


def test_the_peers_worker_needs_the_checkout_and_not_the_package():
    """Its environment has neither luvc nor what luvc needs: -I -S leave the standard library."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import benchmarks.peers.openvino_system"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=PEERS, check=True)


def test_no_room_of_the_product_imports_a_benchmark():
    """The wheel does not carry them."""
    imported = re.compile(r"^\s*(from|import) \S*\bbenchmarks\b", re.M)
    rooms = [
        p
        for r in ("exporter", "plugins", "engines", "tools")
        for p in ROOT.joinpath(r).rglob("*.py")
    ]
    assert rooms and not [path for path in rooms if imported.search(path.read_text())]
