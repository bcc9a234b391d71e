"""The SPU kernels on a GPU: checked against float64, timed against other forms and the memory floor.

Compiles each kernel from its source, launches it with the parameters the TensorRT plugins report and
compares with numpy in float64 (poisoned outputs). Then times score, select and gather with CUDA events
over several input sets, beside torch.fft, the two-matmul basis form and the time the bytes need at the
measured copy bandwidth. Prints a table, writes JSON. Needs torch with CUDA, cuda-bindings, NVRTC.

    python benchmarks/gpu/kernels.py [--output kernels.json]
"""

import ctypes
import datetime
import json
import statistics
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from luvc.plugins.spectrum import launch as plans
from luvc.plugins.spectrum import nvrtc, reference

SHAPES = [(1, 256, 896), (1, 1024, 3584), (1, 4096, 4096), (8, 1024, 4096), (1, 16384, 3584)]
CHECKS = [16, 49, 105, 144, 196, 256, 2816, 3328, 576, 729, 1000, 1001, 1009, 1024, 1440, 2048, 4096,
          5760, 8192, 16384]  # fmt: skip
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
REPEATS, SETS = 50, 4


class Kernel:
    """A compiled kernel that takes torch tensors."""

    def __init__(self, plan: plans.Launch):
        self.plan, self.driver = plan, ctypes.CDLL("libcuda.so.1")
        self.module, self.function = ctypes.c_void_p(), ctypes.c_void_p()
        self._call(
            "cuModuleLoadData", ctypes.byref(self.module), nvrtc.compile_launch(plan).encode()
        )
        self._call(
            "cuModuleGetFunction", ctypes.byref(self.function), self.module, plan.entry.encode()
        )

    def _call(self, name, *arguments):
        status = getattr(self.driver, name)(*arguments)
        if status:
            raise RuntimeError(f"{name}: CUDA error {status}")

    def __call__(self, grid, inputs, scalars, outputs) -> None:
        """Launch on torch's current stream."""
        values = [ctypes.c_uint64(t.data_ptr()) for t in inputs]
        values += [ctypes.c_int(s) for s in scalars]
        values += [ctypes.c_uint64(t.data_ptr()) for t in outputs]
        addresses = (ctypes.c_void_p * len(values))(*[ctypes.addressof(v) for v in values])
        sizes = [ctypes.c_uint(n) for n in (*grid, self.plan.threads, 1, 1, 0)]
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        self._call("cuLaunchKernel", self.function, *sizes, stream, addresses, None)


class Stage:
    """One SPU stage: V -> keep, as three launches."""

    def __init__(self, batch: int, tokens: int, channels: int, cutoff: int, keep: int, dtype: str):
        self.cutoff, self.keep, self.sequence = cutoff, keep, tokens + 64
        B, V, D, S = batch, tokens, channels, self.sequence
        self.score_plan = plans.score_launch(V, 1, D, cutoff, dtype)
        self.score = Kernel(self.score_plan)
        self.select = Kernel(plans.select_launch(V, 1, keep))
        self.gather = Kernel(plans.gather_launch(D, dtype))
        unit = plans.unit_bytes(D, dtype)
        self.units = D * plans.ITEM_BYTES[dtype] // unit
        empty = {"device": "cuda", "dtype": torch.int64}
        self.index = torch.arange(4, 4 + V, device="cuda").expand(B, -1).contiguous()
        self.positions = (
            torch.arange(S, device="cuda")[None, :, None].expand(B, -1, -1).contiguous()
        )
        self.twiddle = reference.twiddle(V).cuda()
        self.energies = torch.full((B, self.score_plan.chunks, V), float("nan"), device="cuda")
        self.keep_index = torch.full((B, S - V + keep), -1, **empty)
        self.next_index, self.kept = (torch.full((B, keep), -1, **empty) for _ in range(2))
        self.rows = torch.full(
            (B, S - V + keep, D), float("nan"), device="cuda", dtype=DTYPES[dtype]
        )
        self.row_positions = torch.full((B, S - V + keep, 1), -1, **empty)

    def run_score(self, hidden: torch.Tensor) -> None:
        """Energies of hidden [B, S, D]."""
        grid = (self.score_plan.chunks, hidden.shape[0], self.score_plan.blocks)
        self.score(grid, (hidden, self.index, self.twiddle), (*hidden.shape[1:], self.cutoff),
                   (self.energies,))  # fmt: skip

    def run_select(self) -> None:
        """Indices from the energies."""
        grid = (self.select.plan.blocks, self.index.shape[0], 1)
        scalars = (self.sequence, self.energies.shape[1], self.keep)
        outputs = (self.keep_index, self.next_index, self.kept)
        self.select(grid, (self.energies, self.index, self.positions), scalars, outputs)

    def run_gather(self, hidden: torch.Tensor) -> None:
        """Surviving rows."""
        grid = (self.keep_index.shape[1], hidden.shape[0], 1)
        inputs = (hidden, self.positions, self.keep_index)
        self.gather(grid, inputs, (self.sequence, self.units, 1), (self.rows, self.row_positions))


def check(tokens: int, dtype: str) -> dict:
    """One length and dtype against float64: relative error, exact select and gather."""
    generator = torch.Generator(device="cuda").manual_seed(tokens)
    B, D, cutoff, keep = 2, 40, max(0, tokens // 8), max(1, tokens // 2)
    stage = Stage(B, tokens, D, cutoff, keep, dtype)
    hidden = torch.randn(B, stage.sequence, D, device="cuda", generator=generator).to(DTYPES[dtype])
    stage.run_score(hidden)
    stage.run_select()
    stage.run_gather(hidden)
    torch.cuda.synchronize()
    x = hidden[:, 4 : 4 + tokens].double().cpu().numpy()
    spectrum = np.fft.rfft(x, axis=1)
    spectrum[:, cutoff + 1 :] = 0
    wanted = (np.fft.irfft(spectrum, n=tokens, axis=1) ** 2).sum(-1)
    energies = stage.energies.sum(1).cpu()
    error = float(np.abs(energies.numpy() - wanted).max() / wanted.max())
    index, positions = stage.index.cpu(), stage.positions.cpu()
    # the kernel's own energies, so that select is compared exactly
    indices = reference.spectrum_select(stage.energies.cpu(), index, positions, keep, 1)
    exact = all(
        torch.equal(a, b.cpu())
        for a, b in zip(indices, (stage.keep_index, stage.next_index, stage.kept), strict=True)
    )
    rows, _ = reference.gather_tokens(hidden.cpu(), positions, indices[0])
    return {
        "tokens": tokens, "dtype": dtype, "kernel": stage.score_plan.source,
        "relative_error": error, "select_exact": exact,
        "gather_exact": torch.equal(rows, stage.rows.cpu()),
    }  # fmt: skip


def microseconds(function, sets: list) -> float:
    """Median time of one call, the input sets taking turns."""
    for item in sets:
        function(item)
    times = []
    for n in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function(sets[n % len(sets)])
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3)
    return statistics.median(times)


def basis_form(stage: Stage, V: int):
    """The two-matmul low-pass in TensorFloat-32-free float32, as a function of hidden."""
    n = torch.arange(V, device="cuda", dtype=torch.float64)[:, None]
    f = torch.arange(1, stage.cutoff + 1, device="cuda", dtype=torch.float64)[None]
    angle = 2 * np.pi * ((n * f) % V) / V
    table = torch.cat([torch.full((V, 1), 0.5**0.5, device="cuda"), angle.cos(), angle.sin()], 1)
    table = (table * (2 / V) ** 0.5).float()
    return lambda x: (table @ (table.T @ x[:, 4 : 4 + V].float())).square().sum(-1)


def fft_form(stage: Stage, V: int):
    """torch.fft, as a function of hidden."""

    def run(x):
        spectrum = torch.fft.rfft(x[:, 4 : 4 + V].float(), dim=1)
        spectrum[:, stage.cutoff + 1 :] = 0
        return torch.fft.irfft(spectrum, n=V, dim=1).square().sum(-1)

    return run


def copy_bandwidth() -> float:
    """Bytes per second of a large device copy, read and written."""
    a = torch.empty(1 << 30, dtype=torch.float32, device="cuda").normal_()
    b = torch.empty_like(a)
    return 2 * a.nbytes / (microseconds(lambda _: b.copy_(a), [None]) * 1e-6)


def time_shape(B: int, V: int, D: int, bandwidth: float) -> dict:
    """Times of one shape in float16, in microseconds."""
    stage = Stage(B, V, D, V // 8, V // 2, "float16")
    sets = [
        torch.randn(B, stage.sequence, D, device="cuda", dtype=torch.float16) for _ in range(SETS)
    ]
    score_bytes = B * V * D * 2 + stage.energies.nbytes
    gather_bytes = 2 * stage.rows.nbytes
    return {
        "shape": [B, V, D],
        "kernel": stage.score_plan.source,
        "score_us": microseconds(stage.run_score, sets),
        "score_floor_us": score_bytes / bandwidth * 1e6,
        "torch_fft_us": microseconds(fft_form(stage, V), sets),
        "basis_us": microseconds(basis_form(stage, V), sets),
        "select_us": microseconds(lambda _: stage.run_select(), sets),
        "gather_us": microseconds(stage.run_gather, sets),
        "gather_floor_us": gather_bytes / bandwidth * 1e6,
    }


def main(
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Check and time the kernels."""
    if not torch.cuda.is_available():
        print("no CUDA GPU: nothing was measured", file=sys.stderr)
        raise SystemExit(2)
    checks = [check(V, dtype) for V in CHECKS for dtype in DTYPES]
    bandwidth = copy_bandwidth()
    times = [time_shape(*shape, bandwidth) for shape in SHAPES]
    result = {
        "command": "python benchmarks/gpu/kernels.py",
        "date": datetime.date.today().isoformat(),
        "gpu": torch.cuda.get_device_name(),
        "versions": {"torch": torch.__version__, "cuda": torch.version.cuda},
        "copy_bandwidth_bytes_per_s": bandwidth,
        "checks": checks,
        "times": times,
    }
    if output:
        output.write_text(json.dumps(result, indent=1) + "\n")
    worst = max(c["relative_error"] for c in checks)
    exact = sum(c["select_exact"] and c["gather_exact"] for c in checks)
    print(
        f"{len(checks)} checks: worst relative error {worst:.1e}, {exact} exact select and gather"
    )
    print(f"copy {bandwidth / 1e12:.2f} TB/s")
    for t in times:
        print(t["shape"], *(f"{k} {v:.1f}" for k, v in t.items() if k.endswith("_us")))


if __name__ == "__main__":
    typer.run(main)
