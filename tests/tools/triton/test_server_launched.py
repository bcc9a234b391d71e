"""`luvc-serve`: models that are unloaded, a process that is killed, a clean stop."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from luvc.engines.serving import Limits
from luvc.tools.triton.server import Ports

from .real_server import ON_SERVER, PLACE, Client, until
from .repositories import with_engines

pytestmark = ON_SERVER
LIMITS = Limits(rows=2, prefix_mib=0)  # a kept picture would be answered without luvc_vision


def three_in_a_row() -> Ports:
    """Free ports as the launcher takes them."""
    while True:
        first = Ports.free().http
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + 3):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return Ports(first, first + 1, first + 2)


@pytest.fixture
def launched(bundle, tmp_path):
    """luvc-serve on a repository for a GPU, as --cpu and in explicit mode -> process, client, folder."""
    from luvc.tools.client_messages import Bounds
    from luvc.tools.triton.repository import Options, write

    repository = tmp_path / "repository"
    write(with_engines(bundle, "sm90"), repository, Options(LIMITS, Bounds(), threads=1))
    plain = (repository / "luvc_vision" / "config.pbtxt").read_text()
    assert "tensorrt_plan" in plain and "KIND_GPU" in plain
    ports = three_in_a_row()
    log, pid = tmp_path / "server.log", tmp_path / "pid"
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "luvc.tools.triton.serve",
                repository,
                "--cpu",
                "--port",
                str(ports.http),
                "--server",
                PLACE,
                "--log",
                log,
                "--pid-file",
                pid,
                "--",
                "--model-control-mode=explicit",
                "--load-model=luvc_vlm",
                "--load-model=luvc_vision",
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process, Client(ports), tmp_path
    finally:
        process.terminate()
        process.wait(30)


def answers(client: Client) -> bool:
    try:
        client.get("health/ready")
    except OSError:
        return False
    return True


def test_load_unload_a_killed_process_and_a_clean_stop(launched, image):
    process, client, folder = launched
    until(lambda: answers(client), 60)
    client.alive(image)
    for model in ("luvc_vision", "luvc_vlm"):
        assert client.post(f"repository/models/{model}/unload", {})[0] == 200
        until(lambda m=model: client.post(f"models/{m}/infer", {})[0] != 200)
        refused = client.generate(image, text_input="Why?", max_tokens=2)
        assert refused["status"] >= 400, refused
        assert client.post(f"repository/models/{model}/load", {})[0] == 200
        client.alive(image)
    assert "died" not in (folder / "out").read_text(), "unloading is no death"
    mine = process_children(process.pid)
    memory = shared_memory(mine)
    # the newest: that of the model unloaded above may still be on its way out
    victim = max(pid for pid in mine if "stub" in mine[pid] and "/luvc_vlm/" in mine[pid])
    os.kill(victim, signal.SIGKILL)
    until(lambda: not answers(client), 10)
    until(lambda: answers(client), 60)
    client.alive(image)
    memory |= shared_memory(process_children(process.pid))
    assert "the process of luvc_vlm has died" in (folder / "out").read_text()
    os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
    assert process.wait(20) == 0, (folder / "out").read_text()
    assert not process_children(process.pid) and not (folder / "pid").exists()
    assert len(memory) > 1 and not [file for file in memory if file.exists()]


def shared_memory(pids: Iterable[int]) -> set[Path]:
    """Files that these processes share; other servers of the machine have theirs beside them."""
    found: set[Path] = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
            found |= {Path(x.split()[-1]) for x in lines if "/dev/shm/triton_python_backend" in x}
    return found


def process_children(pid: int) -> dict[int, str]:
    """Commands of all descendants."""
    import psutil

    try:
        return {p.pid: " ".join(p.cmdline()) for p in psutil.Process(pid).children(recursive=True)}
    except psutil.NoSuchProcess:
        return {}
