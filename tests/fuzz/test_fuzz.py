"""A short run of the fuzzer, every input it ever found, its watcher, and a short soak."""

import random
import sys
from pathlib import Path

import pytest

from luvc.errors import LuvcError

from . import found, soak, watch
from .child import BUFFER, HEAD
from .found import kept
from .material import SHAPE, Material
from .surfaces import COSTLY, Surface, load
from .watch import Bounds, Watched

INPUTS = 12
"""Of each surface; `make fuzz` tries thousands."""
pytestmark = pytest.mark.xdist_group("fuzz")  # they share what is spoilt


@pytest.fixture(scope="module")
def material(workshop, tmp_path_factory) -> Material:
    """As `Material.make` writes it, of what other tests have made."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "right").mkdir()
    (folder / "right" / "checkpoint").symlink_to(workshop.checkpoint(**SHAPE))
    (folder / "right" / "bundle").symlink_to(workshop.bundle("qwen2-text").path)
    return Material(folder / "right", folder)


@pytest.fixture(scope="module")
def surface(material):
    """A function: the surface of a name."""
    made: dict[str, Surface] = {}

    def get(name: str) -> Surface:
        if name not in made:
            made[name] = load()[name](material)
        return made[name]

    return get


def tried(surface: Surface, data: bytes) -> None:
    try:
        surface.check(data)
    except LuvcError as e:
        assert len(str(e)) < 5000


@pytest.mark.parametrize("name", load())
def test_spoilt_inputs_give_a_result_or_a_clear_refusal(surface, name):
    chosen = surface(name)
    count = 3 if name in COSTLY else INPUTS

    one = chosen.drawing(lambda data: tried(chosen, data))
    for number in range(count):
        one(random.Random(f"{name} {number}").randbytes(BUFFER))


@pytest.mark.parametrize(("name", "file"), kept(), ids=lambda x: getattr(x, "name", x))
def test_what_failed_once_does_not_fail_again(surface, name, file):
    tried(surface(name), file.read_bytes())


WRITES = f"""
import pathlib, sys, time
state, number = pathlib.Path(sys.argv[1]), int(sys.argv[2])
def now(data=b"bad"):
    global number
    number += 1
    (state / "s.current").write_bytes(number.to_bytes({HEAD}, "little") + data)
"""


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("time.sleep(60)", "hang"),
        ("time.sleep(0.5); held = b'a' * (200 << 20); time.sleep(60)", "memory"),
        ("import os; os.kill(os.getpid(), 11)", "crash"),
    ],
)
def test_the_watcher_keeps_what_a_process_died_of(tmp_path, monkeypatch, fault, kind):
    script = f"{WRITES}now(b'')\nif number < 2: now(); {fault}\nnow(b'')\n"

    def command(self, first):
        return [sys.executable, "-c", script, str(self.state), str(first)]

    monkeypatch.setattr(Watched, "_command", command)
    told = []
    Watched("s", tmp_path, 0, 3, "random", Bounds(seconds=2.0, mib=100)).run(0, told.append)
    (file,) = [p for p in tmp_path.glob("found/s/*") if p.suffix != ".txt"]
    assert file.name.startswith(kind) and file.read_bytes() == b"bad"
    assert told[-1] >= 3  # another process went on behind it


def test_alike_faults_are_kept_twice(tmp_path):
    for n in range(5):
        found.Finding("s", "TypeError-a-b", bytes([n]), "text").keep(tmp_path)
    assert len(list(tmp_path.glob("s/*.txt"))) == found.ALIKE


def test_every_kept_input_has_a_surface():
    assert {name for name, _ in kept()} <= set(load())


def test_a_soak_loses_no_ticket(material):
    seen = soak.run(Path(material.source) / "bundle", threads=8, seconds=4)
    assert all(len(texts) == 1 for texts in seen.texts.values()) and seen.seen["plain"] > 8
    assert seen.seen["refused"] and watch.START
