"""Drafts belong to living processes; what is left of others is removed, what cannot be decided is not."""

import fcntl
import os
import subprocess
import sys

import pytest

from luvc import drafts
from luvc.files import whole

from .places import DEAD


def left(folder):
    return [path.name for path in drafts.leftovers(folder, "x")]


def test_a_live_draft_is_nobodys_leftover(tmp_path):
    """A volume that containers share: the number of the process says nothing, so none is in the name."""
    place = tmp_path / "x"
    with drafts.held(place, os.mkdir) as one, drafts.held(place, drafts.new_file) as two:
        assert {one.name, two.name} == set(os.listdir(tmp_path)) and left(tmp_path) == []
        ask = "import sys, pathlib; from luvc import drafts; "
        ask += "print(list(drafts.leftovers(pathlib.Path(sys.argv[1]), 'x')))"
        shown = subprocess.check_output([sys.executable, "-c", ask, tmp_path], text=True)
        assert shown == "[]\n"
    assert not os.listdir(tmp_path), "what the block leaves is removed"


def test_only_drafts_of_that_name(tmp_path):
    names = [f".x.luvc-{DEAD}", f".x.luvc-{DEAD}-old", f".xy.luvc-{DEAD}", ".x.luvc-1-2", "x", ".x"]
    for name in names:
        (tmp_path / name).write_text("")
    assert left(tmp_path) == names[:2]


@pytest.mark.parametrize("system", ["nfs4", "cifs", "fuse.sshfs", "9p", ""])
def test_another_machines_drafts_on_a_network_volume_are_left(tmp_path, monkeypatch, system):
    """Its locks may not be seen here; those of this machine are."""
    with drafts.held(tmp_path / "x", drafts.new_file) as ours:
        name = ours.name
    ours.write_text("killed")
    assert left(tmp_path) == [name]
    theirs = tmp_path / f".x.luvc-{DEAD}"
    theirs.write_text("under way")
    monkeypatch.setattr(drafts, "_file_system", lambda path: system)
    with pytest.warns(UserWarning, match=f"{theirs} is left, another machine or user may be"):
        drafts.remove_leftovers(tmp_path, "x")
    assert os.listdir(tmp_path) == [theirs.name] and not ours.exists()


def test_where_there_are_no_locks_nothing_is_removed(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    (tmp_path / f".x.luvc-{DEAD}").write_text("under way")
    with pytest.warns(UserWarning, match="is left"), whole(tmp_path / "x") as draft:
        draft.write_text("new")
    assert sorted(os.listdir(tmp_path)) == [f".x.luvc-{DEAD}", "x"]


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").write_text("mine")
    (tmp_path / f".x.luvc-{DEAD}").symlink_to(tmp_path / "mine")
    with pytest.warns(UserWarning, match="is left"):
        drafts.remove_leftovers(tmp_path, "x")
    assert (tmp_path / "mine" / "thesis").read_text() == "mine"


def test_a_draft_that_is_removed_before_it_is_held_is_made_anew(tmp_path):
    made = []

    def make(path):
        made.append(path)
        os.mkdir(path)
        if len(made) < 3:  # another process comes between
            drafts.remove_leftovers(tmp_path, "x")

    with drafts.held(tmp_path / "x", make) as draft:
        assert made[-1] == draft and len(made) == 3 and draft.is_dir()


def test_the_kind_of_a_file_system_is_known(tmp_path):
    """As /proc says it, which psutil reads too."""
    shown = subprocess.check_output(["stat", "-f", "-c", "%T", tmp_path], text=True)
    found = drafts._file_system(tmp_path / "file")
    assert found and found[:3] in shown  # ext4 is "ext2/ext3" there
