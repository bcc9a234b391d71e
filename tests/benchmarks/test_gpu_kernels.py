"""The kernels' benchmark as far as a CPU allows: sizes, forms, checks on the host's kernels, verdicts."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from benchmarks.gpu import forms, kernels, sanitizer, stage, timing
from luvc.plugins import cuda_kernel, nvrtc

from ..plugins import test_kernels
from ..plugins.conftest import Emulator, emulator  # noqa: F401 a fixture


@pytest.fixture
def host(request, monkeypatch):
    """Kernels run on the host; a function may spoil their outputs."""
    machine: Emulator = request.getfixturevalue("emulator")
    spoil = {"score.cu": lambda x: None}

    def kernel(plan):
        def run(call, inputs, outputs):
            grid, scalars = call
            arrays = [[_array(t) for t in tensors] for tensors in (inputs, outputs)]
            machine.run(plan, grid, arrays[0], scalars, arrays[1])
            spoil.get(plan.source, lambda x: None)(arrays[1][0])

        return run

    monkeypatch.setattr(cuda_kernel, "kernel", kernel)
    return spoil


def _array(t: torch.Tensor) -> np.ndarray:
    return (t.view(torch.int16) if t.dtype == torch.bfloat16 else t).numpy()


@pytest.mark.parametrize(
    "sizes", [stage.Sizes(144, 1, 2, 6, "float32"), stage.Sizes(105, 3, 2, 5, "bfloat16")]
)
def test_a_check_passes_and_can_fail(host, sizes):
    found = stage.check(sizes, "cpu")
    assert kernels.passes(found), found
    assert found["relative_error"] > 0
    host["score.cu"] = lambda energies: energies.fill(np.nan)
    assert not kernels.passes(stage.check(sizes, "cpu"))
    host["score.cu"] = lambda energies: energies.__setitem__(0, energies[0] * 1.0001)
    assert not kernels.passes(stage.check(sizes, "cpu"))
    host["score.cu"] = lambda energies: None
    host["select.cu"] = lambda keep_index: keep_index.__setitem__((0, -1), -1)
    assert not stage.check(sizes, "cpu")["select_exact"]


def test_a_kernel_that_cannot_be_launched_fails_its_check(monkeypatch):
    def refuse(sizes):
        raise RuntimeError("score.cu: cuLaunchKernel returned CUDA error 700")

    monkeypatch.setattr(kernels, "check", refuse)
    found = kernels.checked(stage.Sizes(144))
    assert not kernels.passes(found) and "error 700" in found["error"]
    assert found["tokens"] == 144


def test_every_length_and_type_of_the_kernels_tests_is_checked():
    checked = {(c.tokens, c.groups, c.dtype) for c in kernels.all_sizes()}
    tested = {(c.tokens, c.groups) for c in test_kernels.CASES}
    assert {(t, g, d) for t, g in tested for d in kernels.DTYPES} <= checked


@pytest.mark.parametrize("few", [True, False])
def test_every_kernel_is_checked_with_one_pass_and_with_several(few):
    seen = {False: set(), True: set()}
    for sizes in kernels.all_sizes(few):
        plan = sizes.plans[0]
        several = test_kernels.several_passes(plan, sizes.channels)
        seen[several].add((plan.source, dict(plan.macros).get("PAIRS")))
    assert seen[True] == test_kernels.SEVERAL
    assert {source for source, _ in seen[False]} == {source for source, _ in test_kernels.SEVERAL}


def test_a_kernel_that_does_not_compile_fails_only_its_check(monkeypatch):
    def refuse(plan):
        raise RuntimeError(f"{plan.source}: division by zero")

    monkeypatch.setattr(nvrtc, "compile_launch", refuse)
    kernels.compile_all([stage.Sizes(144)])


def test_checks_are_written_type_by_type(tmp_path, monkeypatch):
    def run(sizes):
        if sizes.dtype == "float32":
            raise KeyboardInterrupt
        return {"dtype": sizes.dtype}

    monkeypatch.setattr(kernels, "checked", run)
    monkeypatch.setattr(kernels, "compile_all", lambda wanted: None)
    target = tmp_path / "kernels.json"
    with pytest.raises(KeyboardInterrupt):
        kernels.check_all(kernels.all_sizes(few=True), {"limit": kernels.LIMIT}, target)
    found = json.loads(target.read_text())
    assert found["limit"] == kernels.LIMIT
    assert {c["dtype"] for c in found["checks"]} == {"float16", "bfloat16"}


def test_timed_energies_are_held_to_the_limit():
    check = {"relative_error": 1e-7, "select_exact": True, "gather_exact": True}
    timed = [{"relative_error": {"kernel": e, "torch.fft": 1.0}} for e in (1e-7, np.nan, 1e-3)]
    report = {"checks": [check, check | {"gather_exact": False}], "times": timed}
    assert kernels.failures(report) == [report["checks"][1], *timed[1:]]
    assert kernels.failures({"checks": [check]}) == []


def test_timed_gathers_write_where_they_are_told(host):
    sizes = stage.Sizes(144, 1, 2, 6, "float32")
    tried = stage.Stage(sizes, device="cpu")
    hidden = torch.randn(2, 144 + stage.TEXT, 6)
    tried.run(hidden)
    wanted = [t.clone() for t in tried.gathered]
    tried.gathered[0].fill_(7)
    outputs = tuple(torch.empty_like(t) for t in tried.gathered)
    tried.gather(hidden, outputs)
    assert all(torch.equal(a, b) for a, b in zip(outputs, wanted, strict=True))
    assert (tried.gathered[0] == 7).all()


def test_every_timed_kernel_has_a_floor(host):
    sizes = stage.Sizes(144, 1, 2, 6, "float16")
    tried = stage.Stage(sizes, device="cpu")
    energies = 2 * tried.score_plan.chunks * 144 * 4
    indices = 2 * 8 * (144 + (stage.TEXT + 72) + 72 + 72)
    found = kernels.floors(tried, bandwidth=1e6)
    wanted = {
        "score_floor_us": 2 * 144 * 6 * 2 + energies,
        "select_floor_us": energies + indices,
        "gather_floor_us": 2 * 2 * (stage.TEXT + 72) * 6 * 2,
    }
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize(("V", "cutoff"), [(16, 8), (27, 3), (64, 8)])
def test_other_forms_give_the_same_energies(V, cutoff):
    x = torch.randn(2, V + 7, 5, generator=torch.Generator().manual_seed(V))
    visual = x[:, forms.FIRST : forms.FIRST + V].double().numpy()
    wanted = stage.energies(visual, 1, cutoff)
    for form in kernels.other_forms(V, cutoff, torch.device("cpu")).values():
        np.testing.assert_allclose(form(x).numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_floors_are_those_of_the_facts():
    """FFT of 4096 tokens and 4096 channels: 1.01 GFLOP; see the launch notes of the kernels."""
    assert forms.fft_flops(1, 4096, 4096) == pytest.approx(1.01e9, rel=0.01)


def test_timing_on_a_cpu_measures_work():
    clock = timing.Clock(torch.device("cpu"))
    x = torch.randn(300, 300)
    found = kernels.microseconds(lambda y: y @ y, [x, x], clock)
    assert 0 < found["min"] <= found["median"] <= found["max"] and found["form"] == "eager"


def test_without_a_gpu_it_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, "-m", "benchmarks.gpu.kernels"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "nothing was measured" in done.stderr


TOOL = """#!{python}
import sys
print("========= COMPUTE-SANITIZER")
print("{text}")
sys.exit({code})
"""


@pytest.mark.parametrize(
    ("text", "code", "clean", "problem"),
    [
        ("========= ERROR SUMMARY: 0 errors", 0, True, None),
        ("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", 0, True, None),
        ("========= ERROR SUMMARY: 3 errors", 0, False, None),
        ("========= ERROR SUMMARY: 0 errors", 1, False, None),  # a check failed
        ("========= Error: Device not supported", 1, None, "Device not supported"),
    ],
)
def test_verdicts_of_compute_sanitizer(tmp_path, monkeypatch, text, code, clean, problem):
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(TOOL.format(python=sys.executable, text=text, code=code))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = sanitizer.verdict("memcheck")
    assert found["clean"] is clean
    assert re.search(problem or "", found.get("problem", ""))


ECHO = """#!{python}
import os, sys
print("========= ERROR SUMMARY: 1 errors")
print("=========", *sys.argv[1:5], os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"])
"""


def test_memcheck_sees_every_tensor_and_no_expected_error(tmp_path, monkeypatch):
    tool = tmp_path / "toolkit" / "compute-sanitizer"
    tool.parent.mkdir()
    tool.write_text(ECHO.format(python=sys.executable))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sanitizer, "TOOLKIT", str(tool.parent))
    found = sanitizer.verdict("memcheck")
    assert found["lines"][1] == "========= --tool memcheck --report-api-errors no 1"


def test_no_compute_sanitizer_is_no_verdict(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sanitizer, "TOOLKIT", str(tmp_path))
    assert sanitizer.verdict("memcheck")["problem"] == "compute-sanitizer is not installed"
    assert sanitizer.run(tmp_path / "sanitizer.json") == 1
    assert (tmp_path / "sanitizer.json").exists()


@pytest.mark.parametrize("part", ["kernels", "rtx", "sanitizer"])
def test_a_bare_gpu_machine_needs_no_pydantic(part):
    code = f"import sys; sys.modules['pydantic'] = None; import benchmarks.gpu.{part}"
    subprocess.run([sys.executable, "-c", code], check=True)
