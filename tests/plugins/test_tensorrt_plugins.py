"""The operators as TensorRT plugins: its real Python layer and registry, no GPU and no builder.

The test aid (conftest.py) is TensorRT's Python bindings on its lean runtime.
"""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from luvc.errors import LuvcError
from luvc.plugins import nvrtc
from luvc.plugins import tensorrt_registry as plugins
from luvc.plugins.operators import OPERATORS
from luvc.plugins.scores.spectrum.launch import score_launch

AID = Path(__file__).parent / "aid"
pytestmark = pytest.mark.xdist_group("tensorrt-plugins")  # one process asks the driver

SIGNAL = ["bfloat16", ["B", "S", 3584]]
ROWS = ["int64", ["B", 1024]]
TWIDDLE = ["float32", [1024, 2]]
ENERGIES = ["float32", ["B", 112, 1024]]
POSITIONS = ["int64", ["B", "S", 3]]
KEEP_INDEX = ["int64", ["B", "R"]]


def request(operator, inputs, **attributes):
    return {"operator": operator, "attributes": attributes, "inputs": inputs}


REQUESTS = {
    "score": request("SpectrumScore", [SIGNAL, ROWS, TWIDDLE], cutoff=128, groups=1, band=1),
    "score groups": request(
        "SpectrumScore",
        [["float16", [2, 1100, 896]], ["int64", [2, 768]], ["float32", [256, 2]]],
        cutoff=32,
        groups=3,
        band=0,
    ),
    "score any length": request(
        "SpectrumScore",
        [["float32", ["B", "S", 7]], ["int64", ["B", 20011]], ["float32", [20011, 2]]],
        cutoff=40,
        groups=1,
    ),  # as graphs of earlier versions: no band
    "select": request("SpectrumSelect", [ENERGIES, ROWS, POSITIONS], keep=512, groups=1),
    "select groups": request("SpectrumSelect", [ENERGIES, ROWS, POSITIONS], keep=512, groups=4),
    "gather": request("GatherTokens", [SIGNAL, POSITIONS, KEEP_INDEX]),
    "gather narrow": request("GatherTokens", [["float16", ["B", "S", 7]], POSITIONS, KEEP_INDEX]),
    # Refusals
    "dynamic V": request(
        "SpectrumScore", [SIGNAL, ["int64", ["B", "V"]], TWIDDLE], cutoff=128, groups=1
    ),
    "dynamic D": request(
        "SpectrumScore", [["float16", ["B", "S", "D"]], ROWS, TWIDDLE], cutoff=128, groups=1
    ),
    "cutoff": request("SpectrumScore", [SIGNAL, ROWS, TWIDDLE], cutoff=513, groups=1),
    "band": request("SpectrumScore", [SIGNAL, ROWS, TWIDDLE], cutoff=8, groups=1, band=2),
    "twiddle": request("SpectrumScore", [SIGNAL, ROWS, ["float32", [512, 2]]], cutoff=8, groups=1),
    "int32 index": request(
        "SpectrumScore", [SIGNAL, ["int32", ["B", 1024]], TWIDDLE], cutoff=8, groups=1
    ),
    "rank": request("SpectrumSelect", [ENERGIES, ROWS, ["int64", ["B", "S"]]], keep=5, groups=1),
    "keep": request("SpectrumSelect", [ENERGIES, ROWS, POSITIONS], keep=1025, groups=1),
}


@pytest.fixture(scope="module")
def driven(tensorrt_aid, tmp_path_factory):
    """What the driver printed: facts about the registration, and one answer per request."""
    try:
        nvrtc.load()
    except LuvcError as error:
        pytest.skip(str(error))
    scratch = tmp_path_factory.mktemp("stub")
    command = [sys.executable, str(AID / "drive.py"), str(tensorrt_aid), str(scratch)]
    text = json.dumps(list(REQUESTS.values()))
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    result["answers"] = dict(zip(REQUESTS, result["answers"], strict=True))
    return result


@pytest.fixture(scope="module")
def answers(driven):
    return driven["answers"]


def test_registration(driven):
    assert driven["facts"]["version"].startswith("11.")
    assert driven["facts"]["before"] is False
    assert driven["facts"]["after"] is True


def test_score(answers):
    answer = answers["score"]
    assert answer["outputs"] == [["float32", ["B", 112, 1024]]]
    assert answer["grid"] == [112, "B", 1]
    assert answer["block"] == [256, 1, 1]
    assert answer["scalars"] == ["S", 3584, 128]
    assert answer["entry"] == "spectrum_score"
    assert answer["ptx"] == nvrtc.compile_launch(score_launch(1024, 1, 3584, 128, 1, "bfloat16"))


def test_score_in_groups(answers):
    answer = answers["score groups"]
    launch = score_launch(768, 3, 896, 32, 0, "float16")
    assert answer["outputs"] == [["float32", [2, launch.chunks, 768]]]
    assert answer["grid"] == [launch.chunks, 2, 3]
    assert answer["scalars"] == [1100, 896, 32]


def test_score_of_any_length(answers):
    answer = answers["score any length"]
    launch = score_launch(20011, 1, 7, 40, 0, "float32")
    assert answer["entry"] == launch.entry == "spectrum_score_basis"
    assert answer["grid"] == [launch.chunks, "B", launch.blocks]
    assert answer["ptx"] == nvrtc.compile_launch(launch)  # band 0


def test_select(answers):
    for name, groups in (("select", 1), ("select groups", 4)):
        answer = answers[name]
        assert answer["outputs"] == [
            ["int64", ["B", "((S - 1024) + 512)"]],
            ["int64", ["B", 512]],
            ["int64", ["B", 512]],
        ]
        assert answer["grid"] == [groups, "B", 1]
        assert answer["block"] == [1024 // groups, 1, 1]
        assert answer["scalars"] == ["S", 112, 512]
        assert answer["entry"] == "spectrum_select"


def test_gather(answers):
    answer = answers["gather"]
    assert answer["outputs"] == [["bfloat16", ["B", "R", 3584]], ["int64", ["B", "R", 3]]]
    assert answer["grid"] == ["R", "B", 1]
    assert answer["scalars"] == ["S", 3584 * 2 // 16, 3]
    assert answers["gather narrow"]["scalars"] == ["S", 7, 3]


def test_every_answer_is_plain_linear_text_ptx(answers):
    for name in list(REQUESTS)[:7]:
        answer = answers[name]
        assert all(layout == "LINEAR" for _, layout in answer["formats"])
        assert answer["shared_mem"] == 0  # all shared memory is static
        assert f".entry {answer['entry']}" in answer["ptx"]
        assert "\0" not in answer["ptx"]


@pytest.mark.parametrize(
    "name, words",
    [
        ("dynamic V", "V, the number of visual tokens, varies at run time"),
        ("dynamic D", "D, the hidden size, varies at run time"),
        ("cutoff", "cutoff 513 is outside 0 .. 512"),
        ("band", "band 2 is none of 0 (low) and 1 (high)"),
        ("twiddle", "twiddle has 512 rows; it must have V / groups = 1024"),
        ("int32 index", "input visual_index is int32; it must be int64"),
        ("rank", "input positions has 2 axes; it must have 3: [B, S, P]"),
        ("keep", "keep 1025 is outside 1 .. 1024"),
    ],
)
def test_refusals_say_what_to_mend(answers, name, words):
    answer = answers[name]
    assert answer["error"] == "LuvcError"
    assert words in answer["message"]


def test_forms_follow_the_contract():
    """Every operator has both forms, taking the contract's inputs and attributes in order."""
    for operator in OPERATORS:
        names = [tensor.name for tensor in operator.inputs] + list(operator.attributes)
        for form in operator.form("tensorrt").FORMS[operator.name]:
            assert list(inspect.signature(form).parameters)[2:] == names


def test_missing_tensorrt_is_a_user_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert not plugins.available()
    with pytest.raises(LuvcError, match="pip install"):
        plugins.register()
