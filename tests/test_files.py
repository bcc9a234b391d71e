import os
from pathlib import Path

import pytest

from luvc.errors import LuvcError
from luvc.files import user_cache, whole
from luvc.places import check_file

from .faults.places import bad_places


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with whole(path, lasting=True) as draft:
        draft.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert os.listdir(path.parent) == ["file.txt"]


def test_what_fails_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("earlier")
    with pytest.raises(KeyboardInterrupt), whole(path) as draft:
        draft.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "earlier"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_processes_do_not_share_a_draft(tmp_path, monkeypatch):
    with whole(tmp_path / "file") as one:
        one.write_text("one")
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with whole(tmp_path / "file") as two:
            two.write_text("two")
        assert (tmp_path / "file").read_text() == "two"
    assert (tmp_path / "file").read_text() == "one"


def test_places_that_a_file_can_be_written_to(tmp_path):
    earlier = tmp_path / "file.txt"
    earlier.write_text("earlier")
    for place in (None, earlier, tmp_path / "file", tmp_path / "new" / "folder" / "file"):
        check_file(place, "--output")
    assert os.listdir(tmp_path) == ["file.txt"], "looking makes nothing"


def test_places_that_no_file_can_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    cases = (
        (tmp_path, "--output .* is a folder; give the name of a file"),
        (Path(os.devnull), "is a device"),
        (tmp_path / "file" / "new" / "x", "file is no folder with write access"),
        *bad_places(tmp_path),
    )
    for place, message in cases:
        with pytest.raises(LuvcError, match=message):
            check_file(place, "--output")
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(LuvcError, match=f"--plot .* cannot be written: {tmp_path} is no folder"):
        check_file(tmp_path / "new" / "x", "--plot")


def test_the_cache_folder_follows_the_users_wish(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "luvc-export"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache" / "luvc-export"
