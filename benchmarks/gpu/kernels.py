"""The SPU kernels on a GPU: checked against float64, timed against other forms and the memory floor.

Compiles each kernel from its source, launches it with the parameters the TensorRT plugins report and
compares with numpy in float64 (poisoned outputs). Then times score, select and gather beside torch.fft and
the two-matmul basis form, and beside the time that the bytes need at the measured copy bandwidth. Inputs
exceed the L2 cache; a pass over all of them is a CUDA graph, so that launches cost little. Needs torch with
CUDA, cuda-bindings and NVRTC, not pydantic.

    python -m benchmarks.gpu.kernels [--check-only] [--sanitize] [--output DIR]
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from luvc.plugins.spectrum import nvrtc
from luvc.tools.benchmark.machine import provenance
from luvc.tools.benchmark.turns import summary

from ..files import write_json
from . import RESULTS, forms
from .stage import Case, Stage, check
from .timing import Captured, Clock, first_line

SHAPES = [(1, 256, 896), (1, 1024, 3584), (1, 4096, 4096), (8, 1024, 4096), (1, 16384, 3584)]
DTYPES = ("float16", "bfloat16", "float32")
LENGTHS = [1, 2, 16, 49, 105, 144, 196, 256, 576, 729, 1000, 1001, 1009, 1024, 1440, 2048, 2816, 3328,
           4096, 4590, 5760, 6144, 8192, 16384, 17408, 20011]  # fmt: skip
IN_GROUPS = [(105, 3), (576, 3), (2816, 11), (3027, 3), (3328, 13)]
FEW = [144, 1009, 1024, 8192]  # one length of each kernel and of a long select, for memory checkers
LIMIT = 1e-5
REPEATS, MOST_SETS = 30, 300


def cases(few: bool = False) -> list[Case]:
    """What is checked; every length in every type, channels odd and even."""
    if few:
        dtypes = (*DTYPES, "float16")
        return [Case(V, channels=12, dtype=d) for V, d in zip(FEW, dtypes, strict=True)]
    pairs = [*((V, 1) for V in LENGTHS), *IN_GROUPS]
    return [
        Case(V, groups, batch=2, channels=40 if d == "float16" else 13, dtype=d)
        for V, groups in pairs
        for d in DTYPES
    ]


def checked(case: Case) -> dict[str, Any]:
    """A check; a kernel that cannot be launched fails it."""
    try:
        return check(case)
    except RuntimeError as error:
        failed = {"relative_error": float("inf"), "select_exact": False, "gather_exact": False}
        return vars(case) | failed | {"error": first_line(error)}


def passes(found: dict[str, Any]) -> bool:
    """Whether a check passed."""
    close = found["relative_error"] <= LIMIT  # false for not-a-number
    return close and found["select_exact"] and found["gather_exact"]


def compile_all(wanted: list[Case]) -> None:
    """Compile what the cases need, several at a time."""
    plans = sorted({plan for case in wanted for plan in case.plans}, key=str)
    with ThreadPoolExecutor() as pool:
        list(pool.map(nvrtc.compile_launch, plans))


def microseconds(work, sets: list[torch.Tensor], clock: Clock) -> dict[str, Any]:
    """Time of one call: passes over all input sets, recorded as a CUDA graph where that works."""
    for item in sets[:3]:
        work(item)
    recorded = Captured(lambda: [work(item) for item in sets][-1], clock.device, warmup=1)
    clock(recorded)
    times = [clock(recorded) * 1e3 / len(sets) for _ in range(REPEATS)]
    return summary(times) | {"form": recorded.form}


def copy_bandwidth(clock: Clock) -> float:
    """Bytes per second of a large device copy, read and written."""
    a = torch.empty(1 << 30, dtype=torch.float32, device=clock.device).normal_()
    b = torch.empty_like(a)
    times = sorted(clock(lambda: b.copy_(a)) for _ in range(10))
    return 2 * a.nbytes / (times[5] * 1e-3)


def launch_cost(clock: Clock) -> float:
    """Microseconds of the smallest kernel in a CUDA graph of many."""
    x = torch.zeros(32, device=clock.device)
    return microseconds(lambda _: x.add_(1), [x] * 200, clock)["median"]


def input_sets(case: Case, text: int, cache: int) -> list[torch.Tensor]:
    """Hidden states [B, S, D] whose visual tokens together are twice the L2 cache."""
    size = case.batch * case.tokens * case.channels * 2
    count = max(4, min(MOST_SETS, -(-2 * cache // size)))
    shape = case.batch, case.tokens + text, case.channels
    dtype = getattr(torch, case.dtype)
    return [torch.randn(shape, device="cuda", dtype=dtype) for _ in range(count)]


def time_shape(shape: tuple[int, int, int], bandwidth: float, clock: Clock) -> dict[str, Any]:
    """Microseconds of one shape in float16."""
    B, V, D = shape
    case, properties = Case(V, batch=B, channels=D), torch.cuda.get_device_properties(0)
    stage = Stage(case, text=64)
    sets = input_sets(case, 64, properties.L2_cache_size)
    others = {
        "torch.fft": forms.fft(V, case.cutoff),
        "basis, float32": forms.basis(V, case.cutoff, clock.device),
        "basis, TF32": forms.basis(V, case.cutoff, clock.device, tf32=True),
    }
    stage.run(sets[0])
    exact = forms.fft(V, case.cutoff, torch.float64)(sets[0])
    errors = {"kernel": _error(stage.energies.sum(1), exact)}
    errors |= {name: _error(form(sets[0]), exact) for name, form in others.items()}
    score_bytes = B * V * D * 2 + stage.energies.nbytes
    capability = f"{properties.major}.{properties.minor}"
    rate = forms.FP32_FLOPS.get(capability)
    return {
        "shape": shape, "kernel": stage.score_plan.source, "input_sets": len(sets),
        "score_us": microseconds(stage.score, sets, clock),
        "select_us": microseconds(stage.select, sets, clock),
        "gather_us": microseconds(stage.gather, sets, clock),
        "others_us": {name: microseconds(form, sets, clock) for name, form in others.items()},
        "score_floor_us": score_bytes / bandwidth * 1e6,
        "gather_floor_us": 2 * stage.gathered[0].nbytes / bandwidth * 1e6,
        "score_fp32_us": forms.fft_flops(B, V, D) / rate * 1e6 if rate else None,
        "relative_error": errors,
    }  # fmt: skip


def _error(ours: torch.Tensor, exact: torch.Tensor) -> float:
    return float((ours.double() - exact).abs().max() / exact.max())


def measure(report: dict[str, Any], target: Path) -> None:
    """Time all shapes, writing the report after each."""
    clock = Clock(torch.device("cuda"))
    report["copy_bandwidth_bytes_per_s"] = bandwidth = copy_bandwidth(clock)
    report["launch_us"] = launch_cost(clock)
    report["times"] = []
    for shape in SHAPES:
        report["times"].append(time_shape(shape, bandwidth, clock))
        write_json(target, report)
        torch.cuda.empty_cache()


def main(
    check_only: Annotated[bool, typer.Option(help="Time nothing and write nothing.")] = False,
    few: Annotated[bool, typer.Option(help="Check one length of each kernel.")] = False,
    sanitize: Annotated[
        bool, typer.Option(help="Only run compute-sanitizer over the checks of --few.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Folder of the JSON file.")] = RESULTS,
) -> None:
    """Check and time the kernels; exit code 1 when a check fails, 2 without a GPU."""
    if not torch.cuda.is_available():
        print("no CUDA GPU: nothing was measured", file=sys.stderr)
        raise SystemExit(2)
    if sanitize:
        from . import sanitizer

        raise SystemExit(sanitizer.run(output / "sanitizer.json"))
    wanted = cases(few)
    compile_all(wanted)
    checks = [checked(case) for case in wanted]
    failed = [c for c in checks if not passes(c)]
    worst = max(c["relative_error"] for c in checks)
    print(f"{len(checks)} checks, {len(failed)} failed, worst relative error {worst:.1e}")
    for c in failed:
        print("FAILED", c)
    if not check_only:
        report = provenance("python -m benchmarks.gpu.kernels") | {"limit": LIMIT, "checks": checks}
        write_json(output / "kernels.json", report)
        if not any("error" in c for c in checks):  # a device after an error measures nothing
            measure(report, output / "kernels.json")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    typer.run(main)
