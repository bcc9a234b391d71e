"""The code is as small and plain as docs/contributing says."""

import ast
import io
import re
import tokenize
from typing import TypeGuard

import pytest

from .sources import ROOT, Function, Source, sources

RULES = ROOT / "docs" / "contributing" / "index.md"

FMT_SKIPS = 20  # all together, around tables of data


def said(pattern: str) -> int:
    """A number that the rules give."""
    found = re.search(pattern, RULES.read_text())
    assert found, f"{RULES} no longer says {pattern!r}: the tests read their limits from it"
    return int(found[1])


FILE_LINES = said(r"Files stay below (\d+)\s+lines")
FUNCTION_LINES = said(r"functions\s+below\s+(\d+)")


def test_files_are_short():
    long = {str(s.path) for s in sources() if s.text.count("\n") >= FILE_LINES}
    assert not long


def length(function: Function) -> int:
    """Lines from `def` to the end without those of the docstring."""
    first = function.body[0]
    doc = (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(function) else 0
    return (function.end_lineno or 0) - function.lineno + 1 - doc


def functions(source: Source) -> list[Function]:
    return [node for node in ast.walk(source.tree) if isinstance(node, Function)]


def test_functions_are_short():
    long = {
        f"{source.path}::{function.name}"
        for source in sources()
        for function in functions(source)
        if length(function) >= FUNCTION_LINES
    }
    assert not long


def is_packed(node: ast.AST) -> TypeGuard[ast.Assign]:
    """`a, b, c = x, y, z`: three things in one line; to unpack what a call returns is another matter."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Tuple)
        and any(isinstance(t, ast.Tuple) and len(t.elts) > 2 for t in node.targets)
    )


def test_no_assignment_has_three_targets():
    packed = {
        f"{s.path}:{node.lineno}" for s in sources() for node in ast.walk(s.tree) if is_packed(node)
    }
    assert not packed


def comments(source: Source) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(source.text).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]


def test_the_formatter_is_seldom_switched_off():
    skips = {str(s.path): n for s in sources() if (n := "\n".join(comments(s)).count("fmt: skip"))}
    assert sum(skips.values()) <= FMT_SKIPS, skips


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("def f():\n    return 1\n", 2),
        ('def f():\n    """One.\n\n    Two.\n    """\n    return 1\n', 2),
    ],
)
def test_docstrings_do_not_count(text, lines):
    assert length(ast.parse(text).body[0]) == lines
