"""The C++ plugin library: it launches as launch.py does, and answers as TensorRT's builder asks.

Building it needs the TensorRT and CUDA headers, which no package index offers: name their folders
in LUVC_TENSORRT_INCLUDE and LUVC_CUDA_INCLUDE, or install them where compilers look.
"""

import ctypes
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from luvc.errors import LuvcError
from luvc.plugins import nvrtc
from luvc.plugins.contract import FLOATS
from luvc.plugins.operators import OPERATORS
from luvc.plugins.scores.spectrum.launch import score_call, score_launch
from luvc.plugins.tokens.launch import gather_call, gather_launch, select_call, select_launch

AID = Path(__file__).parent / "aid"
CPP = Path(nvrtc.__file__).parent / "cpp"
# Of nvinfer1::DataType
FLOAT32 = 0
BF16 = 7
INT64 = 8
SCORE = ["cutoff=128", "groups=1", "band=1", "--", "7:-4,-1104,3584", "8:-4,1024", "0:1024,2"]
SELECT = ["keep=512", "groups=4", "--", "0:-4,112,1024", "8:-4,1024", "8:-4,-1104,1"]
GATHER = ["--", "7:-4,-1104,3584", "8:-4,-1104,3", "8:-4,-500"]


@pytest.fixture(scope="module")
def describe(tmp_path_factory):
    """luvc_describe_launch of plan.cpp, which needs no header of TensorRT."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to build plan.cpp")
    library = tmp_path_factory.mktemp("plan") / "plan.so"
    build = ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", str(CPP / "plan.cpp"), "-o"]
    subprocess.run([*build, str(library)], check=True)
    function = ctypes.CDLL(str(library)).luvc_describe_launch

    def call(operation, *numbers):
        text = ctypes.create_string_buffer(2000)
        length = function(operation, (ctypes.c_int64 * len(numbers))(*numbers), text, len(text))
        return text.raw[:length].decode()

    return call


def score_plan(tokens, groups, channels, cutoff, band, element, batch, sequence):
    launch = score_launch(tokens, groups, channels, cutoff, band, FLOATS[element])
    return launch, score_call(launch, batch, sequence, channels, cutoff)


def select_plan(tokens, groups, keep, batch, sequence, chunks):
    launch = select_launch(tokens, groups, keep)
    return launch, select_call(launch, batch, sequence, chunks, keep)


def gather_plan(channels, element, batch, sequence, rows, components):
    launch = gather_launch(channels, FLOATS[element])
    call = gather_call(channels, FLOATS[element], batch, sequence, rows, components)
    return launch, call


PLANS = (score_plan, select_plan, gather_plan)


def line(operation, *numbers):
    """What luvc_describe_launch must say."""
    try:
        launch, (grid, scalars) = PLANS[operation](*numbers)
    except LuvcError as error:
        return str(error)
    values = (launch.threads, launch.shared_bytes, launch.chunks, launch.blocks, *grid, *scalars)
    return " ".join([launch.source, launch.entry, *map(str, values), *launch.options()])


def test_launches_equal_those_of_python(describe):
    rng = random.Random(0)
    lengths = [*range(-1, 300), 576, 1009, 1440, 5760, 5824, 8192, 8788, 16384, 65536, 65537]
    lengths += [rng.randrange(300, 40000) for _ in range(1500)]
    for tokens in lengths:
        groups = rng.choice([1, 1, 1, 2, 3, 0])
        channels, element = rng.choice([0, 1, 7, 896, 3584]), rng.randrange(3)
        cutoff = rng.randrange(-1, max(tokens, 1) // 2 + 2)
        band = rng.choice([0, 1, 0, 1, 2])
        keep = rng.randrange(0, max(tokens, 1) + 2)
        batch, sequence = rng.randrange(1, 17), rng.randrange(40000, 80000)
        chunks, rows = rng.randrange(17, 129), rng.randrange(200, 40000)
        for question in (
            (0, tokens, groups, channels, cutoff, band, element, batch, sequence),
            (1, tokens, groups, keep, batch, sequence, chunks),
            (2, channels, element, batch, sequence, rows, 3),
        ):
            assert describe(*question) == line(*question)


def include(variable, header, *folders):
    """Folder of a header: from the environment or the usual places; skips when it is nowhere."""
    given = os.environ.get(variable)
    for folder in [given] if given else folders:
        if (Path(folder) / header).is_file():
            return folder
    pytest.skip(f"{header} was not found; name its folder in {variable}")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The library and its driver."""
    usual = ("/usr/include", "/usr/include/x86_64-linux-gnu", "/usr/local/tensorrt/include")
    tensorrt = include("LUVC_TENSORRT_INCLUDE", "NvInfer.h", *usual)
    cuda = include("LUVC_CUDA_INCLUDE", "cuda_runtime_api.h", "/usr/local/cuda/include", *usual)
    if shutil.which("cmake") is None:
        pytest.skip("no cmake to build the plugin library")
    folder = tmp_path_factory.mktemp("library")
    paths = [f"-DTENSORRT_INCLUDE={tensorrt}", f"-DCUDA_INCLUDE={cuda}"]
    subprocess.run(["cmake", "-S", str(CPP), "-B", str(folder), *paths], check=True)
    subprocess.run(["cmake", "--build", str(folder)], check=True)
    driver = folder / "drive_library"
    source = str(AID / "drive_library.cpp")
    build = ["g++", "-std=c++17", "-w", "-I", tensorrt, "-I", cuda, source, "-o", str(driver)]
    subprocess.run([*build, "-ldl"], check=True)
    return folder / "libluvc_plugins.so", driver


@pytest.fixture(scope="module")
def drive(built):
    """Runs the driver; returns its lines up to the PTX, the PTX, and the error log."""
    try:
        nvrtc.load()
    except LuvcError as error:
        pytest.skip(str(error))
    maps = Path("/proc/self/maps").read_text().split()
    folder = next(str(Path(word).parent) for word in maps if "/libnvrtc.so" in word)

    def run(operator, *words, compiler=True):
        environment = {"LD_LIBRARY_PATH": folder if compiler else ""}
        done = subprocess.run(
            [str(built[1]), str(built[0]), operator, *words],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        head, _, ptx = done.stdout.partition("ptx ")
        return head.splitlines(), ptx.rstrip("\n"), done.stderr

    return run


@pytest.mark.parametrize("band", [1, 0])
def test_score(drive, band):
    words = SCORE if band else [*SCORE[:2], *SCORE[3:]]  # nodes of earlier versions have no band
    lines, ptx, _ = drive("SpectrumScore", *words)
    launch = score_launch(1024, 1, 3584, 128, band, "bfloat16")
    options = " ".join(launch.options())
    assert lines == [
        f"types {FLOAT32}",
        f"shape i0.0 {launch.chunks} 1024",
        "cutoff 128",
        "groups 1",
        f"band {band}",
        f"source score.cu {options}",
    ]
    assert ptx == nvrtc.compile_launch(launch).rstrip("\n")


def test_select(drive):
    lines, ptx, _ = drive("SpectrumSelect", *SELECT)
    rest = "shape i1.0 512"
    assert lines[:4] == [
        f"types {INT64} {INT64} {INT64}",
        "shape i1.0 ((i2.1-1024)+512)",
        rest,
        rest,
    ]
    assert ptx == nvrtc.compile_launch(select_launch(1024, 4, 512)).rstrip("\n")


def test_gather(drive):
    lines, ptx, _ = drive("GatherTokens", *GATHER)
    assert lines[:3] == [f"types {BF16} {INT64}", "shape i2.0 i2.1 3584", "shape i2.0 i2.1 3"]
    assert ptx == nvrtc.compile_launch(gather_launch(3584, "bfloat16")).rstrip("\n")


@pytest.mark.parametrize(
    "words, stage, reason",
    [
        (["cutoff=600", *SCORE[1:]], "getOutputShapes", "cutoff 600 is outside 0 .. 512"),
        ([*SCORE[:2], "band=2", *SCORE[3:]], "getOutputShapes", "band 2 is none of 0 (low) and 1"),
        (["cutoff=600", *SCORE[2:]], "createPlugin", "attribute groups is missing"),
        ([*SCORE[:5], "8:-4,-1024", SCORE[6]], "getOutputShapes", "V, the number of visual tokens"),
        ([*SCORE[:6], "0:512,2"], "getOutputShapes", "twiddle has 512 rows"),
        ([*SCORE[:5], "3:-4,1024", SCORE[6]], "getOutputDataTypes", "input 1 has an element type"),
        ([*SCORE[:5], "8:-4,1024,1", SCORE[6]], "getOutputShapes", "input 1 has 3 axes, not 2"),
    ],
)
def test_refusals(drive, words, stage, reason):
    lines, _, log = drive("SpectrumScore", *words)
    assert lines[-1] == f"refused in {stage}"
    assert reason in log


def test_missing_compiler_is_said(drive):
    lines, _, log = drive("GatherTokens", *GATHER, compiler=False)
    if lines[-1] == "refused in configurePlugin":  # else the system has an NVRTC of its own
        assert "cannot open libnvrtc.so.13" in log


def test_registry_takes_the_library(built, tensorrt_aid, tmp_path):
    command = [sys.executable, str(AID / "load_library.py"), str(tensorrt_aid), str(tmp_path)]
    done = subprocess.run(
        [*command, str(built[0])], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    missing = result["answers"].pop("missing attribute")
    assert missing == [["cutoff", "groups", "band"], False]
    assert result["answers"].pop("no band")[1], "nodes of earlier versions lack it"
    assert result["answers"] == {op.name: [list(op.attributes), True] for op in OPERATORS}
    assert "build it with: cmake" in result["messages"][0]
    assert "registered already" in result["messages"][1]
