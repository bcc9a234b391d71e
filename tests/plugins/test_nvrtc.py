"""The kernels as PTX: they compile, fit shared memory and take the agreed parameters."""

import re
import sys
from pathlib import Path

import pytest

from luvc.errors import LuvcError
from luvc.plugins import nvrtc
from luvc.plugins.launch import SHARED_BYTES
from luvc.plugins.scores.spectrum.launch import score_launch
from luvc.plugins.tokens.launch import gather_launch, select_launch

LENGTHS = [1, 2, 16, 49, 105, 144, 196, 256, 576, 729, 1000, 1001, 1009, 1024, 1440, 2048]
LENGTHS += [256 * 11, 256 * 13, 4096, 5760, 5824, 6144, 8192, 8788, 16384, 17408, 20011, 65536]
HIGH = [16, 1009, 1024, 5824, 20011]  # some of each kernel
POINTER, INTEGER = "u64", "u32"


@pytest.fixture(scope="module", autouse=True)
def compiler():
    try:
        nvrtc.load()
    except LuvcError as error:
        pytest.skip(str(error))


def parameters(ptx: str) -> list[str]:
    """PTX types of the kernel's parameters, in order."""
    header = re.search(r"\.entry\s+\w+\s*\((.*?)\)", ptx, re.DOTALL)
    assert header, ptx
    # Pointers carry attributes such as .ptr .align 1 between type and name.
    return re.findall(r"\.param\s+\.(\w+)", header[1])


def shared_bytes(ptx: str) -> int:
    """Static shared memory the PTX declares; every array in it is of bytes."""
    declared = re.findall(r"\.shared\s+\.align\s+\d+\s+\.b8\s+\w+\[(\d+)\]", ptx)
    assert len(declared) == len(re.findall(r"^\s*\.shared", ptx, re.MULTILINE))
    return sum(map(int, declared))


def check(launch, expected_parameters):
    ptx = nvrtc.compile_launch(launch)
    assert re.findall(r"\.entry\s+(\w+)", ptx) == [launch.entry]
    assert re.search(r"^\.target sm_80", ptx, re.MULTILINE)
    assert parameters(ptx) == expected_parameters
    assert shared_bytes(ptx) == launch.shared_bytes <= SHARED_BYTES
    assert ".extern" not in ptx  # nothing that a loader would have to link
    assert len(ptx) < 150_000


@pytest.mark.parametrize(("tokens", "band"), [*((n, 0) for n in LENGTHS), *((n, 1) for n in HIGH)])
def test_score(tokens, band):
    dtype = ("float16", "bfloat16", "float32")[tokens % 3]
    launch = score_launch(tokens, 1, 3584 + tokens % 2, tokens // 8, band, dtype)
    check(launch, [POINTER] * 3 + [INTEGER] * 3 + [POINTER])


@pytest.mark.parametrize("tokens", [1, 100, 1024, 1025, 16384, 65536])
def test_select(tokens):
    launch = select_launch(tokens, 1, 1)
    check(launch, [POINTER] * 3 + [INTEGER] * 3 + [POINTER] * 3)


@pytest.mark.parametrize("channels", [7, 12, 3584])
def test_gather(channels):
    check(gather_launch(channels), [POINTER] * 3 + [INTEGER] * 3 + [POINTER] * 2)


def test_no_two_sources_are_called_alike():
    """A launch and an #include name a file without its folder."""
    plugins = Path(nvrtc.__file__).parent
    names = [path.name for path in plugins.rglob("*.cu*") if path.suffix in (".cu", ".cuh")]
    assert sorted(names) == list(nvrtc.SOURCES)


def test_compiled_once():
    launch = gather_launch(64)
    assert nvrtc.compile_launch(launch) is nvrtc.compile_launch(launch)


def test_missing_compiler_is_a_user_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvrtc", None)
    with pytest.raises(LuvcError, match="pip install"):
        nvrtc.load()


def test_broken_kernel_is_a_bug_with_the_log():
    with pytest.raises(RuntimeError, match="LENGTH"):
        nvrtc.compile_ptx("select.cu", ("--std=c++17",))
