"""Commands that write, killed, stopped and out of room: see tests/faults/kill.py, which knows all events."""

import signal

import pytest

pytest.importorskip("pyarrow.parquet")
pytest.importorskip("tritonclient.grpc")

from .commands import COMMANDS, MODULES, commands
from .kill import kills, tree, warm

pytestmark = pytest.mark.xdist_group("faults")  # one warm process
WHOLE = [name for name in COMMANDS if name in MODULES and name not in ("eval", "bench")]
STOPPED = 128 + signal.SIGTERM


@pytest.fixture(scope="module")
def given(workshop):
    checkpoint = workshop.checkpoint(layers=2, vision_layers=1, image=56)
    return {"bundle": str(workshop.bundle("qwen2").path), "checkpoint": str(checkpoint)}


@pytest.fixture(scope="module")
def process(given):
    with warm(given) as running:
        yield running


EVENTS = [(name, 4 if name == "run" else 9) for name in COMMANDS if name != "export"]


@pytest.mark.parametrize(
    ("name", "most"), [*EVENTS, pytest.param("export", 12, marks=pytest.mark.slow)]
)
def test_killed_at_a_file_event(given, process, tmp_path, name, most):
    assert kills(name, given, process, tmp_path, most) > 3


@pytest.mark.parametrize("name", WHOLE)
def test_sigterm_leaves_nothing_half_done(given, process, tmp_path, name):
    command = commands(given)[name]
    command.prepare(tmp_path)
    before = tree(tmp_path)
    code, _ = process.run(name, tmp_path, 3, signal.SIGTERM)
    assert code == STOPPED, process.said()
    after = tree(tmp_path)
    assert {n: after[n] for n in before} == before
    left = {
        n for n in after.keys() - before.keys() if n not in ("out", "out/_run.json", "photo.jpg")
    }
    assert not left and "Traceback" not in process.said()


@pytest.mark.parametrize("name", WHOLE)
def test_a_limit_on_the_size_of_files(given, process, tmp_path, name):
    """`ulimit -f`, as a full disk: the kernel refuses the write."""
    command = commands(given)[name]
    command.prepare(tmp_path)
    before = tree(tmp_path)
    limit = 20_000 if name == "export" else 900  # more than is printed, less than is written
    code, _ = process.run(name, tmp_path, None, limit=limit)
    said = process.said()
    assert code == 2 and "cannot be written" in said and "ulimit -f" in said, said
    assert "Traceback" not in said
    after = tree(tmp_path)
    assert {n: after[n] for n in before} == before
    assert not {n for n in after.keys() - before.keys() if n not in ("out", "out/_run.json")}
