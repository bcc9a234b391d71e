"""What luvc-serve writes beside the server: its log and its pid, looked at before anything is started."""

import subprocess
from pathlib import Path

import pytest

from luvc.errors import LuvcError
from luvc.tools.triton import serve
from luvc.tools.triton.server import Binary, Ports, Server


@pytest.mark.parametrize(
    ("place", "message"),
    [("/", "--pid-file / is a folder"), ("/dev/null/pid", "--pid-file /dev/null/pid cannot be")],
)
def test_a_place_for_the_pid(command, tmp_path, place, message):
    result = command(serve, tmp_path, "--server", tmp_path / "nowhere", "--pid-file", place)
    assert result.code == 2 and message in result.err


def test_a_log_is_added_to_in_a_folder_that_is_made(tmp_path, monkeypatch):
    def start(command, stdout, **options):
        stdout.write(b"said\n")

    monkeypatch.setattr(subprocess, "Popen", start)
    log = tmp_path / "new" / "log"
    for _ in range(2):  # as after the death of a server
        Server(Binary(Path("tritonserver")), tmp_path, Ports(1, 2, 3), log=log)
    assert log.read_bytes() == b"said\nsaid\n"


def test_nothing_is_started_without_a_place_for_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *command, **options: pytest.fail("started"))
    for log in (tmp_path, Path("/dev/null/log")):
        with pytest.raises(LuvcError, match=f"log {log} cannot be written: .*; give the name"):
            Server(Binary(Path("tritonserver")), tmp_path, Ports(1, 2, 3), log=log)


@pytest.mark.parametrize(
    ("later", "dead"),
    [({8: "luvc_vlm"}, []), ({}, ["luvc_vlm"]), ({9: "luvc_vision"}, ["luvc_vlm"])],
)
def test_a_model_loaded_again_between_two_looks_has_not_died(tmp_path, monkeypatch, later, dead):
    """Its old process is gone when they are counted, and it is ready by the time that is asked."""
    monkeypatch.setattr(subprocess, "Popen", lambda *command, **options: Running())
    server = Server(Binary(Path("tritonserver")), tmp_path, Ports(1, 2, 3))
    looks = iter([{7: "luvc_vlm"}, {}, later])
    monkeypatch.setattr(server, "_stubs", lambda: next(looks))
    monkeypatch.setattr(server, "_shared_memory", set)
    monkeypatch.setattr(server, "_says_ready", lambda model: True)
    assert server.dead_models() == []
    assert server.dead_models() == dead


class Running:
    """A process that has not ended."""

    pid = 1

    def poll(self) -> None:
        """No exit code."""
