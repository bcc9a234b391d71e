"""What was answered is freed at once, and freed pictures leave a server's memory, as the C library counts."""

import contextlib
import gc
import subprocess
import sys
import time
import weakref

import openai
import pytest

from luvc.tools.serve import app

from .conftest import asking, create, url_of

pytestmark = pytest.mark.xdist_group("serve")

CODE = """
import ctypes, sys
import numpy as np
from luvc.tools.serve.heap import give_large_blocks_back

NAMES = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in NAMES]

if sys.argv[1] == "told":
    assert give_large_blocks_back()
info = ctypes.CDLL(None).mallinfo2
info.restype = Info
np.empty(16 << 20, np.uint8)  # freed at once: smaller blocks are cut from the heap from now on
before = info().hblkhd
kept = np.empty(8 << 20, np.uint8)
print(info().hblkhd - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_a_large_block_has_pages_of_its_own():
    found = {}
    for told in ("told", "by itself"):
        command = [sys.executable, "-c", CODE, told]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if "mallinfo2" in result.stderr:
            pytest.skip("glibc before 2.33 cannot count it")
        assert result.returncode == 0, result.stderr
        found[told] = int(result.stdout)
    assert found["told"] >= 8 << 20 and found["by itself"] == 0


def test_what_was_answered_waits_for_no_garbage_collector(server, client, picture, monkeypatch):
    """A full collection is rare in a process of a million objects; pictures would pile up until then."""
    requests, read = [], app.read_request
    tickets, submit = [], server[1].submit

    def noted(found, *args, **options):
        made = (read if found is requests else submit)(*args, **options)
        found.append(weakref.ref(made))
        return made

    monkeypatch.setattr(app, "read_request", lambda *args: noted(requests, *args))
    monkeypatch.setattr(
        server[1], "submit", lambda *args, **options: noted(tickets, *args, **options)
    )
    gc.disable()
    try:
        create(client, asking(url_of(picture)))
        with create(client, asking(url_of(picture)), stream=True) as stream:
            assert list(stream)
        with contextlib.suppress(openai.BadRequestError):
            create(client, asking(url_of(picture), text="long " * 500))
        create(client, asking(text="What now?"))  # the last one may be in use yet
        end = time.monotonic() + 10
        while any(r() for r in (*requests[:-1], *tickets[:-1])) and time.monotonic() < end:
            time.sleep(0.05)
        assert len(requests) == 4 and len(tickets) == 4
        assert not any(r() for r in (*requests[:-1], *tickets[:-1]))
    finally:
        gc.enable()
