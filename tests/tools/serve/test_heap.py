"""Freed pictures leave a server's memory, counted by the C library itself."""

import subprocess
import sys

import pytest

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
