"""The SPU kernels on a GPU: checked against float64, timed against other forms and the memory floor.

Compiles each kernel from its source, launches it with the parameters the TensorRT plugins report and
compares with numpy in float64 (poisoned outputs). Then times score, select and gather beside torch.fft and
products with the truncated basis, and beside the time that the bytes need at the measured copy bandwidth.
Inputs exceed the L2 cache; a pass over all of them is a CUDA graph, so that launches cost little. Needs torch
with CUDA, cuda-bindings and NVRTC, not pydantic.

    python -m benchmarks.gpu.kernels [--check-only] [--sanitize] [--output DIR]
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from luvc.errors import brief
from luvc.exporter.timing.interleaved import summary
from luvc.plugins import nvrtc
from luvc.tools.bench.machine import provenance

from ..files import write_json
from . import RESULTS, forms
from .stage import Sizes, Stage, check
from .timing import Captured, Clock

SHAPES = [(1, 256, 896), (1, 1024, 3584), (1, 4096, 4096), (8, 1024, 4096), (1, 16384, 3584)]
DTYPES = ("float16", "bfloat16", "float32")
LENGTHS = [1, 2, 16, 49, 105, 144, 196, 256, 576, 729, 1000, 1001, 1009, 1024, 1440, 2018, 2048, 2816, 3328,
           4096, 4590, 5760, 5824, 6144, 8192, 8788, 16384, 17408, 20011]  # fmt: skip
IN_GROUPS = [(105, 3), (576, 3), (2816, 11), (3027, 3), (3328, 13)]
FEW = [144, 1009, 1024, 8192]  # one length of each kernel and of a long select, for memory checkers
# V and D at which blocks of each kernel make several passes over channels (score.cu: of 8 and of 4 pairs)
MULTI_PASS = [(144, 2100), (1024, 1040), (1009, 520), (8192, 260)]
LIMIT = 1e-5
REPEATS, MOST_SETS = 30, 300


def all_sizes(few: bool = False) -> list[Sizes]:
    """What is checked; every length in every type and band, channels odd and even, some passes."""
    if few:
        shapes = [*((V, 12) for V in FEW), *MULTI_PASS]
        typed = zip(shapes, cycle(DTYPES), strict=False)
        one = [Sizes(V, channels=D, dtype=d) for (V, D), d in typed]
        return [*one, *(replace(sizes, band=1) for sizes in one)]
    pairs = [*((V, 1) for V in LENGTHS), *IN_GROUPS]
    once = [
        Sizes(V, groups, batch=2, channels=40 if d == "float16" else 13, dtype=d)
        for V, groups in pairs
        for d in DTYPES
    ]
    several = [Sizes(V, channels=D, dtype=d) for V, D in MULTI_PASS for d in DTYPES]
    return [replace(sizes, band=band) for sizes in (*once, *several) for band in (0, 1)]


def checked(sizes: Sizes) -> dict[str, Any]:
    """A check; a kernel that cannot be launched fails it."""
    try:
        return check(sizes)
    except RuntimeError as error:
        failed = {"relative_error": float("inf"), "select_exact": False, "gather_exact": False}
        return vars(sizes) | failed | {"error": brief(error)}


def passes(found: dict[str, Any]) -> bool:
    """Whether a check passed."""
    close = found["relative_error"] <= LIMIT  # false for not-a-number
    return close and found["select_exact"] and found["gather_exact"]


def failures(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Checks that failed, and timed shapes whose energies are off."""
    off = [t for t in report.get("times", ()) if not t["relative_error"]["kernel"] <= LIMIT]
    return [*(c for c in report["checks"] if not passes(c)), *off]


def compile_all(wanted: list[Sizes]) -> None:
    """Compile what the sizes need, several at a time; what does not compile fails its check."""
    plans = sorted({plan for sizes in wanted for plan in sizes.plans}, key=str)
    with ThreadPoolExecutor() as pool:
        for plan in plans:
            pool.submit(nvrtc.compile_launch, plan)


def check_all(wanted: list[Sizes], report: dict[str, Any], target: Path | None) -> None:
    """Check one type after the other; where there is a target, the report is written after each."""
    report |= {"checks": [], "planned": len(wanted)}
    for dtype in DTYPES:
        part = [sizes for sizes in wanted if sizes.dtype == dtype]
        compile_all(part)
        report["checks"] += [checked(sizes) for sizes in part]
        if target is not None:
            write_json(target, report)


def microseconds(work, sets: Sequence[Any], clock: Clock) -> dict[str, Any]:
    """Time of one call: passes over all sets of inputs, recorded as a CUDA graph where that works."""
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


def input_sets(sizes: Sizes, text: int, cache: int) -> list[torch.Tensor]:
    """Hidden states [B, S, D] whose visual tokens together are twice the L2 cache."""
    size = sizes.batch * sizes.tokens * sizes.channels * 2
    count = max(4, min(MOST_SETS, -(-2 * cache // size)))
    shape = sizes.batch, sizes.tokens + text, sizes.channels
    dtype = getattr(torch, sizes.dtype)
    return [torch.randn(shape, device="cuda", dtype=dtype) for _ in range(count)]


def other_forms(V: int, cutoff: int, device: torch.device) -> dict[str, forms.Form]:
    """What the score is timed beside, by name."""
    table = forms.basis_table(V, cutoff).to(device, torch.float32)
    found = {"torch.fft": forms.fft(V, cutoff)}
    for precision, tf32 in (("float32", False), ("TF32", True)):
        found[f"basis, {precision}"] = forms.basis(table, tf32)
        found[f"Gram, {precision}"] = forms.gram(table, tf32)
    return found


def floors(stage: Stage, bandwidth: float) -> dict[str, float]:
    """Microseconds that the bytes of each kernel need, each read or written once."""
    sizes, hidden = stage.sizes, stage.gathered[0]
    visual = sizes.batch * sizes.tokens * sizes.channels * hidden.element_size()
    indices = sum(t.nbytes for t in (stage.index, *stage.selected))
    moved = {
        "score": visual + stage.energies.nbytes,
        "select": stage.energies.nbytes + indices,
        "gather": 2 * hidden.nbytes,
    }
    return {f"{name}_floor_us": size / bandwidth * 1e6 for name, size in moved.items()}


def time_shape(shape: tuple[int, int, int], bandwidth: float, clock: Clock) -> dict[str, Any]:
    """Microseconds of one shape in float16."""
    B, V, D = shape
    sizes, properties = Sizes(V, batch=B, channels=D), torch.cuda.get_device_properties(0)
    stage = Stage(sizes, text=64)
    sets = input_sets(sizes, 64, properties.L2_cache_size)
    gathers = [(x, tuple(torch.empty_like(t) for t in stage.gathered)) for x in sets]
    others = other_forms(V, sizes.cutoff, clock.device)
    stage.run(sets[0])
    exact = forms.fft(V, sizes.cutoff, torch.float64)(sets[0])
    errors = {"kernel": _error(stage.energies.sum(1), exact)}
    errors |= {name: _error(form(sets[0]), exact) for name, form in others.items()}
    capability = f"{properties.major}.{properties.minor}"
    rate = forms.FP32_FLOPS.get(capability)
    return {
        "shape": shape,
        "kernel": stage.score_plan.source,
        "input_sets": len(sets),
        "score_us": microseconds(stage.score, sets, clock),
        "select_us": microseconds(stage.select, sets, clock),
        "gather_us": microseconds(lambda item: stage.gather(*item), gathers, clock),
        "others_us": {name: microseconds(form, sets, clock) for name, form in others.items()},
        **floors(stage, bandwidth),
        "score_fp32_us": forms.fft_flops(B, V, D) / rate * 1e6 if rate else None,
        "relative_error": errors,
    }


def _error(ours: torch.Tensor, exact: torch.Tensor) -> float:
    return float((ours.double() - exact).abs().max() / exact.max())


def measure(report: dict[str, Any], target: Path) -> None:
    """Time all shapes, writing the report after each."""
    clock = Clock(torch.device("cuda"))
    report["copy_bandwidth_bytes_per_s"] = bandwidth = copy_bandwidth(clock)
    report["launch_us"] = launch_cost(clock)
    report["times"] = []
    for shape in SHAPES:
        timed = time_shape(shape, bandwidth, clock)
        report["times"].append(timed)
        write_json(target, report)
        median, error = timed["score_us"]["median"], timed["relative_error"]["kernel"]
        print(f"{shape}: score {median:.1f} µs, relative error {error:.1e}", flush=True)
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
    target = None if check_only else output / "kernels.json"
    report: dict[str, Any] = {"limit": LIMIT}
    if target is not None:
        report = provenance("python -m benchmarks.gpu.kernels") | report
    check_all(all_sizes(few), report, target)
    checks, failed = report["checks"], failures(report)
    worst = max(c["relative_error"] for c in checks)
    print(f"{len(checks)} checks, {len(failed)} failed, worst relative error {worst:.1e}")
    for c in failed:
        print("FAILED", c)
    # a device after an error measures nothing
    if target is not None and not any("error" in c for c in checks):
        measure(report, target)
    raise SystemExit(bool(failures(report)))


if __name__ == "__main__":
    typer.run(main)
