"""docs/gpu.md: as committed, from made-up results, and what becomes of goals reached and missed."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import engines, goals, report, results, run

ROOT = Path(__file__).parent.parent.parent
ORIGIN = {
    "command": "python -m benchmarks.gpu.x",
    "date": "2027-01-01",
    "machine": {
        "cpu": "C",
        "gpu": {
            "name": "NVIDIA H200",
            "driver": "580.1",
            "capability": "9.0",
            "memory_gib": 140.4,
        },
    },
    "versions": {"python": "3.12.3", "torch": "2.11.0"},
}


def times(median, spread=0.0):
    return {"median": median, "min": median, "max": median + spread, "samples": [median]}


def shape_times(shape, score, others):
    return {
        "shape": shape,
        "kernel": "score.cu",
        "score_us": times(score),
        "select_us": times(5),
        "gather_us": times(6),
        "others_us": {k: times(v) for k, v in others.items()},
        "score_floor_us": 10.0,
        "select_floor_us": 0.5,
        "gather_floor_us": 4.0,
        "score_fp32_us": None,
        "relative_error": {"kernel": 2e-7, "torch.fft": 1e-6},
    }


def kernels(good: bool):
    check = {
        "relative_error": 3e-7 if good else float("nan"),
        "select_exact": good,
        "gather_exact": True,
    }
    others = {"torch.fft": 40.0, "basis, float32": 30.0, "basis, TF32": 21.0, "Gram, TF32": 25.0}
    spoiled = {"torch.fft": times(40.0) | {"form": "eager"}}
    return ORIGIN | {
        "checks": [check, check | {"relative_error": 2e-7}],
        "planned": 2,
        "launch_us": 2.0,
        "copy_bandwidth_bytes_per_s": 4.3e12,
        "times": [
            shape_times([1, 1024, 3584], 22.0 if good else 24.0, others),
            (last := shape_times([1, 4096, 4096], 13.0 if good else 15.0, others))
            | {"others_us": last["others_us"] | spoiled},
        ],
    }


def ratio(prefill, spu=None, slower=0.0):
    parts = {
        "vision_ms": 10.0,
        "prefill_ms": prefill,
        "first_token_ms": 10 + prefill,
        "decode_ms": 5.0 + slower,
    }
    found = {name: times(value, 0.1) for name, value in parts.items()}
    if spu is not None:
        found["spu_ms"] = times(spu)
    found["not_recorded"] = {"decode": "no"}
    return found | {
        "kv_bytes": 1000,
        "kv_plan_bytes": 1000,
        "kv_prompt_bytes": 2**20,
        "peak_bytes": 2**30,
    }


def headline(good: bool):
    side = {f"{p}_ms": times(100.0) for p in ("vision", "prefill", "decode")}
    attention = {p: {"name": "flash"} for p in ("vision", "prefill", "decode")}
    case = {
        "visual": 1024,
        "batch": 1,
        "logits_error": 1e-3,
        "attention": attention,
        "ratios": {
            "1": ratio(200.0),
            "2": ratio(99.0, 0.5) if good else ratio(120.0, 2.0, slower=0.5),
        },
        "eager": {"luvc": side, "hf": side if good else side | {"prefill_ms": times(80.0)}},
    }
    large = {k: v for k, v in case.items() if k != "eager"} | {"batch": 16}
    large["not_compared"] = "only batches up to 8 are held beside Hugging Face"
    broken = {"visual": 1024, "batch": 32, "error": "OutOfMemoryError: full", "trace": []}
    return ORIGIN | {
        "model": "M",
        "paper": not good,
        "runtime": "PyTorch",
        "dtype": "bfloat16",
        "cases": [case, large, broken],
    }


def parity(good: bool):
    reports = [{
        "passed": good, "failures": [] if good else ["logits: relative error 1"],
        "stages": [{"relative_error": 1e-3}], "kept": [{"overlap": 0.99}], "greedy_equal": 64,
        "greedy_tokens": 64,
    }]  # fmt: skip
    runtimes = {
        "torch-cuda": {
            "status": "compared",
            "passed": good,
            "reports": reports,
            "description": "P",
        },
        "tensorrt-rtx": {"status": "not available", "reason": "a | b\nc", "description": None},
    }
    return ORIGIN | {"bundles": [{"name": "demo", "runtimes": runtimes}]}


def sanitizer(good: bool):
    racecheck = {"clean": True} if good else {"clean": False, "findings": 2}
    return ORIGIN | {"tools": {"memcheck": {"clean": True}, "racecheck": racecheck}}


def rtx(good: bool):
    step = {"step": "load plans", "seconds": 1.0}
    steps = [step | ({"value": {}} if good else {"error": "RuntimeError: sm_90 | no"})]
    return ORIGIN | {"steps": steps, "runs": good, "equal": True if good else None}


def folder_of(path, good):
    made = {"kernels": kernels, "headline-M": headline, "parity": parity, "sanitizer": sanitizer,
            "rtx": rtx}  # fmt: skip
    for name, make in made.items():
        (path / f"{name}.json").write_text(json.dumps(make(good)))
    return path


@pytest.fixture(autouse=True)
def planned(monkeypatch):
    """The computed table, which takes seconds, in the test of the committed page alone."""
    row = {"model": "M", "tokens": "4 → 2", "prefill": 2.0, "vision": 1.3, "both": 1.95}
    monkeypatch.setattr(report, "allowed", lambda: [row])


def test_the_committed_page_is_that_of_the_committed_results(monkeypatch):
    monkeypatch.undo()
    assert (ROOT / "docs/gpu.md").read_text() == report.write(), "python -m benchmarks.gpu.report"


def test_nothing_measured(tmp_path):
    page = report.write(tmp_path)
    assert "Nothing has been measured yet" in page
    assert page.count("| not yet |") == len(goals.GOALS)
    assert "| reached |" not in page and "**missed**" not in page
    assert "cannot become" not in page  # 1.95 of FLOPs is enough


def test_goals_reached(tmp_path):
    page = report.write(folder_of(tmp_path, True))
    assert "**missed**" not in page and "Nothing has been measured" not in page
    assert page.count("| reached |") == len(goals.GOALS)
    assert "NVIDIA H200 (compute capability 9.0, 140.4 GiB), driver 580.1" in page
    assert "**It runs here**, and its answers equal PyTorch's." in page
    assert "| 1024, 1 | 2x | 10.00 | 99.00 | **2.02x** | 109.00 | **1.93x** |" in page
    assert "V 1024, batch 32 ended with: OutOfMemoryError: full" in page
    assert "V 1024, batch 16 is left out: only batches up to 8 are held beside" in page
    assert "| 40.0 | 30.0 | 21.0 | 25.0 | 5.0 | 0.5 | 6.0 | 4.0 |" in page
    assert "| demo | tensorrt-rtx | not available: a \\| b c |" in page
    assert "CUDA graph but for torch.fft; a launch" in " ".join(page.split())
    assert "decode ran without a CUDA graph: no." in page
    for line in page.splitlines():
        assert not line.startswith("|") or line.endswith("|"), line


def test_the_kernels_goals_name_the_best_form_the_slower_floor_and_all_errors():
    data = kernels(True)
    short, long = data["times"]
    short["others_us"]["Gram, TF32"] = times(15.0)
    long["others_us"]["Gram, TF32"] = times(18.0)
    long |= {"score_floor_us": 8.0, "score_fp32_us": 12.0, "relative_error": {"kernel": 1e-3}}
    found = {v.goal: (v.found, v.reached) for v in goals.kernels(data)}
    assert found == {
        "energies": ("at most 1.0e-03, 1 above", False),
        "select and gather": ("0 not exact", True),
        "score, short": ("22.0 µs against 17.0", False),
        "memory floor": ("62%", False),
        "slower floor": ("92%", True),
        "score, long": ("1.38x", False),
    }
    some = {v.goal: v.reached for v in goals.kernels(data | {"planned": 3})}
    assert not some["select and gather"], "a check that did not run is not passed"


def test_goals_missed(tmp_path, monkeypatch):
    missed = {
        v.goal for v in goals.verdicts(results.read(folder_of(tmp_path, False))) if not v.reached
    }
    assert missed == set(goals.GOALS) - {"memcheck", "KV bytes"}
    text = '"SPU share" = "the stages are too many"\n'
    (tmp_path / "reasons.toml").write_text(text)
    monkeypatch.setattr(goals, "REASONS", tmp_path / "reasons.toml")
    page = report.write(tmp_path)
    assert page.count("**missed**") == len(missed)
    assert "- SPU share: the stages are too many" in page
    assert "- racecheck: the reason is not known" in page
    assert "**It did not run.**" in page and "RuntimeError: sm_90 \\| no" in page
    assert "decode slower (M, V 1024, batch 1, 2x)" in page


def test_reasons_are_of_goals():
    assert set(goals.reasons()) <= set(goals.GOALS)
    found = goals.verdicts({"kernels": kernels(True), "headline-M": headline(True)})
    assert {v.goal for v in found} <= set(goals.GOALS)


def test_half_a_result_is_shown(tmp_path):
    data = kernels(True)
    del data["times"], data["launch_us"], data["copy_bandwidth_bytes_per_s"]
    (tmp_path / "kernels.json").write_text(json.dumps(data))
    page = report.write(tmp_path)
    assert "2 cases of score" in page and "Times in" not in page


def test_backends_with_engines(tmp_path):
    cases = [
        {"batch": b, "system": s, "vision_ms": times(5.0), "prefill_ms": times(p),
         "first_token_ms": times(p + 5), "decode_ms_per_token": None}
        for b in (1, 8) for s, p in (("1x", 100.0), ("2x", 48.0))
    ]  # fmt: skip
    about = ORIGIN | {"backend": "ort", "model": "M", "visual": 1024}
    (tmp_path / "engines-ort-M.json").write_text(json.dumps(about | {"cases": cases}))
    absent = about | {"backend": "tensorrt-rtx", "status": "not available", "reason": "no wheel"}
    (tmp_path / "engines-tensorrt-rtx-M.json").write_text(json.dumps(absent))
    page = report.write(tmp_path)
    assert "| 8 | 2x | 5.00 | 48.00 | 53.00 |  |" in page
    assert "Not available: no wheel" in page
    found = goals.verdicts(results.read(tmp_path))
    assert [v.reached for v in found] == [True] * 4


def test_a_backend_without_a_gpu_is_written_down(tmp_path, command, monkeypatch):
    import typer

    function = engines.main
    monkeypatch.setattr(engines, "main", lambda: typer.run(function))
    result = command(engines, "--backend", "ort", "--output", tmp_path)
    found = json.loads((tmp_path / "engines-ort-InternVL2_5-8B.json").read_text())
    assert result.code == 0 and found["status"] == "not available"
    assert "pip install onnxruntime-gpu" in found["reason"]


def test_parts_have_their_time(tmp_path, monkeypatch, capfd):
    script = "import sys, time; print('says', sys.argv[1:]); time.sleep(float(sys.argv[2]))"
    sleeps = {"a": ("0", 30), "b": ("60", 2), "c": ("0", 30)}  # seconds, and how many it may take
    parts = {n: run.Part((n, s), limit, n == "c") for n, (s, limit) in sleeps.items()}
    monkeypatch.setattr(run, "PARTS", parts)
    real = run.subprocess.Popen

    def popen(command, **options):
        return real([sys.executable, "-c", script, *command[2:]], **options)

    monkeypatch.setattr(run.subprocess, "Popen", popen)
    outcomes = run.run(["a", "b", "c"], [], None, tmp_path, minutes=1)
    assert [o[:2] for o in outcomes] == [
        ("a", "done"),
        ("b", "ended after 2 s"),
        ("c", "left out: no --bundle"),
    ]
    assert run.run(["a"], [], None, tmp_path, minutes=0.1)[0][1] == "left out: no time"
    run.show(outcomes, folder_of(tmp_path, False))
    said = capfd.readouterr().out
    assert "benchmarks.gpu.a" in said and "MISSED" in said and "ended after 2 s" in said
    part = run.PARTS["c"]
    assert run.extras(part, [Path("x"), Path("y")], "M", tmp_path)[:2] == ["x", "y"]


def test_bundles_are_measured_side_by_side(workshop):
    bundles = {f"{r}x": workshop.bundle("qwen2", float(r)).path for r in (1, 2)}
    found = engines.measure(bundles, "ort", [1], rounds=1, new_tokens=2)
    assert [s["name"] for s in found["systems"]] == ["1x", "2x"]
    one, two = found["cases"]
    assert len(one["visual_tokens"]) == 4 and two["visual_tokens"][-1] == 0
    assert one["prefill_ms"]["median"] > 0 and one["kv_bytes"] > two["kv_bytes"]
    wrapped = ORIGIN | {"backend": "ort", "model": "M", "visual": 36} | found
    assert [v.goal for v in goals.engines(wrapped)] == ["prefill at 2x", "first token at 2x"]
