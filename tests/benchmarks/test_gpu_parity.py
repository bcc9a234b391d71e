"""Runtimes compared and recorded: PyTorch's half precision here, everything that can go wrong elsewhere."""

import json
import sys

import pytest

from benchmarks.gpu import parity, rtx, steps

PLAN = {"backend": "tensorrt-rtx", "graphs": [{"file": "engines/prefill.plan"}]}

FAKE = """
import os, sys
__version__ = "9.9"
class Severity:
    name = "ERROR"
    def __le__(self, other): return True
class ILogger:
    WARNING = None
    def __init__(self): pass
class Runtime:
    def __init__(self, log): self.log = log
    def deserialize_cuda_engine(self, data):
        print("noise on standard output")
        {deserialize}
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Puts a stand-in for tensorrt_rtx in front of a real one."""

    def write(text: str) -> None:
        folder = tmp_path / "packages"
        folder.mkdir()
        (folder / "tensorrt_rtx.py").write_text(text)
        path = [str(folder), *(p for p in sys.path if p)]
        monkeypatch.setenv("PYTHONPATH", ":".join(path))

    return write


@pytest.fixture
def bundle(tmp_path):
    """Of a bundle, what is read before anything of ours is imported."""
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines/prefill.plan").write_bytes(b"plan")
    (tmp_path / "manifest.json").write_text(json.dumps({"engines": [PLAN]}))
    return tmp_path


def tried(command, bundle):
    result = command(rtx, bundle, "--output", bundle / "results")
    assert result.code == 0, result.err
    return json.loads((bundle / "results/rtx.json").read_text())


@pytest.fixture(autouse=True)
def typer_main(monkeypatch):
    """The scripts as commands of the tests' `command` fixture."""
    import typer

    for module in (rtx, parity):
        function = module.main
        monkeypatch.setattr(module, "main", lambda f=function: typer.run(f))


@pytest.mark.parametrize(
    ("deserialize", "message"),
    [
        (
            "self.log.log(Severity(), 'sm_90 is not supported'); return None",
            "RuntimeError: prefill.plan is refused: ERROR: sm_90 is not supported",
        ),
        ("os.abort()", "the process ended by SIGABRT (6)"),
        ("os._exit(3)", "the process ended with exit code 3"),
        ("raise MemoryError", "MemoryError: MemoryError()"),
    ],
)
def test_a_plan_that_is_refused(command, library, bundle, deserialize, message):
    library(FAKE.format(deserialize=deserialize))
    found = tried(command, bundle)
    assert [s["step"] for s in found["steps"]] == ["import", "load plans"]
    assert found["steps"][1]["error"] == message
    assert found["runs"] is False and found["equal"] is None
    assert found["versions"] and found["date"]


@pytest.mark.parametrize("text", ["raise OSError('libx.so.13 is missing')", None])
def test_a_library_that_is_missing(command, library, bundle, text, monkeypatch):
    library(text or "raise ModuleNotFoundError(\"No module named 'tensorrt_rtx'\")")
    found = tried(command, bundle)
    (step,) = found["steps"]
    assert step["step"] == "import" and found["runs"] is False
    assert step["error"].endswith("libx.so.13 is missing" if text else "named 'tensorrt_rtx'")


def test_a_bundle_without_engines(bundle):
    (bundle / "manifest.json").write_text(json.dumps({"engines": []}))
    assert rtx.plans(bundle) == []


def test_a_process_that_hangs_is_ended():
    code = "from benchmarks.gpu.steps import Steps\nimport time\nSteps()('wait', lambda: time.sleep(60))"
    (found,) = steps.watch(["-c", code], 5, "wait")
    assert found["step"] == "wait" and found["error"] == "not finished after 5 s"


ENDS = """
import os
from benchmarks.gpu.steps import Steps
step = Steps()
step("load", lambda: "loaded")
{then}
os._exit(3)
"""


def test_a_bad_exit_after_the_last_step_is_only_noted():
    code = ENDS.format(then="step('compare', lambda: [{'passed': True}])")
    found = steps.watch(["-c", code], 60, "compare")
    assert [s["step"] for s in found] == ["load", "compare"]
    assert not any("error" in s for s in found)
    compared = parity.outcome(found)
    assert compared["status"] == "compared" and compared["passed"]
    assert compared["exit"] == "the process ended with exit code 3"


def test_a_bad_exit_after_an_error_leaves_the_error():
    code = ENDS.format(then="try: step('compare', lambda: [][0])\nexcept SystemExit: pass")
    load, compare = steps.watch(["-c", code], 60, "compare")
    assert "error" not in load and compare["error"].startswith("IndexError")
    assert compare["exit"] == "the process ended with exit code 3"


def test_a_process_that_ends_between_steps_failed():
    found = steps.watch(["-c", ENDS.format(then="")], 60, "compare")
    assert parity.outcome(found)["status"] == "failed"
    assert found[-1]["error"] == "the process ended with exit code 3"


def test_half_precision_in_pytorch_is_equal(workshop):
    bundle = workshop.bundle("qwen2-fp16")
    runner = parity.torch_cuda(bundle, None, device="cpu")
    assert "float16" in runner.description
    (report,) = parity.compare(bundle, runner, "torch-cuda", None)
    assert report["passed"] and not report["failures"] and report["kept"]
    assert 0 < max(s["relative_error"] for s in report["stages"]) < 5e-2


def test_what_is_not_there_is_recorded(command, workshop, tmp_path):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("ONNX Runtime has a CUDA provider here")
    path = workshop.bundle("qwen2-fp16").path
    result = command(parity, path, "--runtime", "ort-cuda", "--output", tmp_path)
    assert result.code == 0, result.err
    (found,) = json.loads((tmp_path / "parity.json").read_text())["bundles"]
    ort = found["runtimes"]["ort-cuda"]
    assert ort["status"] == "not available" and "pip install onnxruntime-gpu" in ort["reason"]
    assert "ort-cuda: not available" in result.out


def test_outcomes():
    ok = {"seconds": 1.0}
    reports = [{"passed": True}, {"passed": False}]
    done = [{"step": "load"} | ok, {"step": "compare", "value": reports} | ok]
    assert parity.outcome(done) | {"passed": False, "seconds": 2.0} == parity.outcome(done)
    failed = parity.outcome([{"step": "load", "error": "RuntimeError: no", "seconds": 1}])
    assert failed["status"] == "failed" and failed["step"] == "load"
