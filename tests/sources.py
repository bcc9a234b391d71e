"""The project's Python files and what each imports: read from their text, none is run."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = ("tools", "exporter", "engines", "plugins")  # a room imports only rooms on its right
BESIDE = ("benchmarks", "tests", "examples")  # these import all rooms, no room imports them
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Import:
    """One module of the project that a file imports, and the line that does."""

    module: str  # dotted from the repository's root: "engines.bundle.manifest"
    line: int
    when: str  # "loaded", "called" (inside a function) or "checked" (for types only)
    absolute: bool  # written "luvc.engines..." instead of with dots


@dataclass(frozen=True)
class Source:
    """A Python file."""

    path: Path  # from the repository's root
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        """Its dotted name; a package's __init__ has the package's."""
        parts = self.path.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def room(self) -> str:
        """Top folder; "" for a module at the root."""
        return self.path.parts[0] if len(self.path.parts) > 1 else ""

    def imports(self) -> Iterator[Import]:
        """Modules of the project that it imports, whenever that happens."""
        for node, when in nodes(self.tree, "loaded"):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{self.named(node)}.{alias.name}" for alias in node.names]
            else:
                continue
            absolute = isinstance(node, ast.Import) or not node.level
            for name in names:
                top, _, rest = name.partition(".")
                if top == "luvc" or top in BESIDE:
                    module = module_of(rest if top == "luvc" else name)
                    yield Import(module, node.lineno, when, absolute)

    def named(self, node: ast.ImportFrom) -> str:
        """The module that a `from` names, from the top: "luvc.errors", "tests.conftest", "torch"."""
        if not node.level:
            return str(node.module)
        top = [] if self.room in BESIDE else ["luvc"]
        above = self.path.parts[: len(self.path.parts) - node.level]
        return ".".join([*top, *above, *filter(None, [node.module])])


def nodes(tree: ast.AST, when: str) -> Iterator[tuple[ast.AST, str]]:
    """All nodes below one, each with when it runs; see `Import`."""
    for node in ast.iter_child_nodes(tree):
        inner = when
        if isinstance(node, Function | ast.Lambda):
            inner = "called"
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            inner = "checked"
        yield node, when
        yield from nodes(node, inner)


def module_of(name: str) -> str:
    """The module that an imported name is or lies in."""
    while name:
        path = ROOT.joinpath(*name.split("."))
        if path.is_dir() or path.with_suffix(".py").is_file():
            return name
        name = name.rpartition(".")[0]
    return name


@cache
def sources() -> tuple[Source, ...]:
    """Every Python file of the project."""
    found = [*ROOT.glob("*.py")]
    for folder in (*ROOMS, *BESIDE):
        found += ROOT.joinpath(folder).rglob("*.py")
    return tuple(read(path) for path in sorted(found))


def read(path: Path) -> Source:
    """One file."""
    text = path.read_text()
    return Source(path.relative_to(ROOT), text, ast.parse(text))
