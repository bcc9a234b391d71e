import os

import pytest

from luvc.files import user_cache, whole


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


def test_the_cache_folder_follows_the_users_wish(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "luvc-export"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache" / "luvc-export"
