"""How commands end: by signals, on a full disk, when nobody reads on."""

import os
import signal
import subprocess
import sys

import pytest

from luvc import console

WORK = """
import sys, time
from pathlib import Path
from luvc import console
from luvc.files import whole

def work(path: Path):
    with whole(path) as draft:
        draft.write_text("half")
        print("ready", flush=True)
        time.sleep(60)

console.run_command(work)
"""
PRINT = """
from luvc import console

def work():
    print("much " * 100)

console.run_command(work)
"""


def begun(folder, **options) -> subprocess.Popen:
    line = [sys.executable, "-c", WORK, folder / "file"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    assert process.stdout and process.stdout.readline() == b"ready\n"
    assert len(os.listdir(folder)) == 1
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_is_half_done_is_removed(tmp_path, number):
    # as from a terminal, though the tests may run under nohup
    process = begun(tmp_path, preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number and said == b""
    assert not os.listdir(tmp_path)


def test_what_is_ignored_stays_so(tmp_path):
    """As nohup sets it."""
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = begun(tmp_path)
    finally:
        signal.signal(signal.SIGHUP, usual)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM


def test_handlers_are_given_back():
    with console.stopped_by(signal.SIGTERM), pytest.raises(SystemExit) as caught:
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_full_disk_for_what_is_printed():
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [sys.executable, "-c", PRINT],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert run.returncode == 2
    wanted = (
        "error: the output cannot be written: the disk is full; make room, or name another place\n"
    )
    assert run.stderr == wanted


def test_nobody_reads_on():
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run(
        [sys.executable, "-c", PRINT], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert run.returncode == 1 and run.stderr == ""
