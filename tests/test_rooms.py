"""What may import what: no arrow up, no circle, no room that is crowded."""

from collections import defaultdict
from graphlib import CycleError, TopologicalSorter

import pytest

from .sources import BESIDE, ROOMS, ROOT, Source, sources

PRODUCT = (*ROOMS, "")  # the modules at the root lie below all rooms
ONE_FILE_A_FAMILY = {"exporter/vision/families"}
FILES_IN_A_ROOM = 15
ROOMS_OF_THE_EXPORTER = 20

TRITON_LOADS = "tools/triton/templates"  # file by file, outside of the package
CROWDED = {"benchmarks/gpu", "tests/families"}  # not mended yet


def room_of(module: str) -> str:
    """The top folder that a module lies in; "" for a module at the root."""
    top = module.partition(".")[0]
    return top if top in (*ROOMS, *BESIDE) else ""


def may_import(source: Source, module: str) -> bool:
    """Whether a file may import a module of the project."""
    if source.room in BESIDE:
        return True
    return room_of(module) in PRODUCT[PRODUCT.index(source.room) :]


def test_rooms_import_only_rooms_on_their_right():
    """tools → exporter → engines → plugins → the root's modules; late imports and those for types too."""
    up = {
        (s.module, i.module) for s in sources() for i in s.imports() if not may_import(s, i.module)
    }
    assert not up


def test_rooms_import_each_other_with_dots():
    """So the checkout may have any name; tests and benchmarks are no part of luvc and name it."""
    for source in sources():
        for found in source.imports():
            where = f"{source.path}:{found.line} imports {found.module}"
            if source.room in PRODUCT and str(source.path.parent) != TRITON_LOADS:
                assert not found.absolute, where
            else:
                assert found.absolute or room_of(found.module) == source.room, where


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, empty if none do."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as e:
        return e.args[1]
    return []


def test_a_circle_is_found():
    assert not circle({"a": {"b", "c"}, "b": {"c"}})
    assert sorted(set(circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}))) == ["b", "c"]


def test_modules_load_without_a_circle():
    arrows = defaultdict(set)
    for source in sources():
        for found in source.imports():
            if found.when == "loaded" and found.module != source.module:
                arrows[source.module].add(found.module)
    assert not circle(arrows)


def part(module: str, package: str) -> str | None:
    """What of a package a module lies in: a file or folder directly there."""
    if not module.startswith(f"{package}."):
        return None
    return ".".join(module.split(".")[: package.count(".") + 2])


def arrows_between_parts(package: str, *when: str) -> dict[str, set[str]]:
    """Which parts of a package import which, at these times."""
    arrows = defaultdict(set)
    for source in sources():
        for found in source.imports():
            start, end = part(source.module, package), part(found.module, package)
            if start and end and start != end and found.when in when:
                arrows[start].add(end)
    return arrows


def test_rooms_of_the_exporter_are_in_no_circle():
    """Late imports and those for types count as well: one can read the rooms from the top down."""
    assert not circle(arrows_between_parts("exporter", "loaded", "called", "checked"))


PACKAGES = sorted({s.module for s in sources() if s.path.name == "__init__.py" and s.module})


@pytest.mark.parametrize("package", PACKAGES)
def test_parts_of_a_package_load_without_a_circle(package):
    """Folders and files of one floor. A class and what it makes may name each other for types."""
    assert not circle(arrows_between_parts(package, "loaded"))


def test_no_room_is_crowded():
    crowded = set()
    for folder in {s.path.parent for s in sources() if s.room}:
        files = [
            p for p in ROOT.joinpath(folder).iterdir() if p.is_file() and p.name != "__init__.py"
        ]
        if len(files) > FILES_IN_A_ROOM and str(folder) not in ONE_FILE_A_FAMILY:
            crowded.add(str(folder))
    assert not crowded - CROWDED


def test_the_exporter_is_no_hall():
    parts = {part(s.module, "exporter") for s in sources()} - {None}
    assert len(parts) <= ROOMS_OF_THE_EXPORTER
