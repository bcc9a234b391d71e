"""A bundle takes its place whole or not at all: targets, replacing, kills."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from luvc.engines.bundle.folder import MANIFEST
from luvc.engines.bundle.swap import check_space, check_target, replacing
from luvc.errors import LuvcError

from ...faults.places import DEAD, bad_places


def test_targets(tmp_path):
    check_target(tmp_path / "new" / "bundle")
    (tmp_path / "file").write_text("x")
    with pytest.raises(LuvcError, match="is a file"):
        check_target(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    check_target(tmp_path / "folder")
    (tmp_path / "folder/letter.txt").write_text("dear")
    with pytest.raises(LuvcError, match="not a bundle"):
        check_target(tmp_path / "folder")
    with pytest.raises(LuvcError, match="cannot be written"):
        check_target(tmp_path / "file" / "bundle")
    for place, message in bad_places(tmp_path):
        with pytest.raises(LuvcError, match=message):
            check_target(place)


def test_targets_that_hold_something_else(tmp_path, monkeypatch, copy):
    app = tmp_path / "app"
    app.mkdir()
    (app / MANIFEST).write_text('{"name": "a web application"}')
    (app / "index.html").write_text("mine")
    with pytest.raises(LuvcError, match="not a bundle"):
        check_target(app)
    check_target(copy)
    for name in (
        "notes.txt",
        "README.md",
        "report/my-notes.txt",
        "onnx/thesis.docx",
        "engines/a/b",
    ):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("mine")
        with pytest.raises(LuvcError, match=f"it holds {name}, which no export wrote"):
            check_target(copy)
        (copy / name).unlink()
    check_target(copy)
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "below")
    for place in (".", "..", tmp_path / "here"):
        with pytest.raises(LuvcError, match="current folder"):
            check_target(Path(place))


def test_what_a_killed_build_left_is_no_stranger(copy):
    """Plans and a manifest under way lie in the bundle; it can be replaced all the same."""
    (copy / f".engines.luvc-{DEAD}").mkdir()
    (copy / f".manifest.json.luvc-{DEAD}").write_text("{")
    (copy / "engines/tensorrt-sm90-11.4").mkdir(parents=True)
    (copy / "engines/tensorrt-sm90-11.4/step.plan").write_text("")
    check_target(copy)


def test_what_is_put_into_a_bundle_while_it_is_exported_anew_stays(copy):
    before = (copy / MANIFEST).read_bytes()
    message = "it holds report/my-notes.txt"
    with pytest.raises(LuvcError, match=message), replacing(copy, check_target) as work:
        (work / MANIFEST).write_text("{}")
        (copy / "report/my-notes.txt").write_text("mine")
    assert (copy / "report/my-notes.txt").read_text() == "mine"
    assert (copy / MANIFEST).read_bytes() == before
    assert [p.name for p in copy.parent.iterdir()] == [copy.name]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with replacing(tmp_path / "link") as work:
        (work / "a").write_text("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "a").read_text() == "new"
    assert {p.name for p in tmp_path.iterdir()} == {"link", "real"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has renameat2")
def test_two_folders_exchange_their_names_in_one_step(tmp_path):
    from luvc.engines.bundle import swap

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own").write_text(name)
    assert swap._exchange(tmp_path / "a", tmp_path / "b") is True
    assert [(tmp_path / name / "own").read_text() for name in ("a", "b")] == ["b", "a"]
    assert not swap._exchange(tmp_path / "a", tmp_path / "c")


def test_without_an_atomic_exchange(tmp_path, monkeypatch):
    """Systems without renameat2: replaced all the same, and restored after a kill in between."""
    from luvc.engines.bundle import swap

    monkeypatch.setattr(swap, "_exchange", lambda a, b: False)
    target = tmp_path / "bundle"
    for text in ("first", "second"):
        with replacing(target) as work:
            (work / "a").write_text(text)
    assert (target / "a").read_text() == "second"
    os.rename(target, tmp_path / f".bundle.luvc-{DEAD}-old")  # killed between two renames
    swap.remove_leftovers(target)
    assert (target / "a").read_text() == "second"


def test_space(tmp_path):
    check_space(tmp_path / "a" / "b", 1000)
    with pytest.raises(LuvcError, match="MiB free"):
        check_space(tmp_path, 1 << 60)


def test_a_failed_block_leaves_everything_as_it_was(tmp_path):
    target = tmp_path / "bundle"
    with replacing(target) as work:
        (work / "a").write_text("first")
    with pytest.raises(RuntimeError), replacing(target) as work:
        (work / "a").write_text("second")
        raise RuntimeError
    assert (target / "a").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_full_disk_is_said(tmp_path):
    target = tmp_path / "bundle"
    cases = (
        (OSError(28, "No space left on device"), "disk is full; make room"),
        (OSError(27, "File too large"), "ulimit -f"),
        (Exception("No space left on device (os error 28)"), "disk is full"),  # of a Rust library
        (OSError(122, "Disk quota exceeded"), "quota is used up"),
    )
    for error, message in cases:
        said = rf"bundle cannot be written: .*{message}.*, or name another place"
        with pytest.raises(LuvcError, match=said), replacing(target):
            raise error
    with pytest.raises(PermissionError), replacing(target):  # of a file that is read, as it may be
        raise PermissionError(13, "Permission denied")
    assert not list(tmp_path.iterdir())


WRITER = """
import sys
from pathlib import Path
from luvc.engines.bundle.swap import replacing
n = 0
print("ready", flush=True)
while True:
    n += 1
    with replacing(Path(sys.argv[1])) as work:
        for i in range(20):
            (work / str(i)).write_text(str(n))
"""


def test_kill_at_random_moments_leaves_a_whole_folder(tmp_path):
    """kill -9 of a process that replaces the folder in a loop: all files are of one generation."""
    target, generations = tmp_path / "bundle", {"0"}
    with replacing(target) as work:
        for i in range(20):
            (work / str(i)).write_text("0")
    for seed in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(random.Random(seed).uniform(0.05, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen = {(target / str(i)).read_text() for i in range(20)}
        assert len(seen) == 1
        generations |= seen
    assert len(generations) > 1
    with replacing(target) as work:
        (work / "0").write_text("last")
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"], "leftovers are removed"
