"""How near a schedule solved for measured time comes to the ratio asked for, beside one for FLOPs.

Solves `--ratio-of latency` on the model of cpu.py, then exports the plain 2x of FLOPs and measures its
prefill beside ratio 1 too. Writes benchmarks/results/latency_ratio.json.

    python -m benchmarks.latency_ratio [--ratio 2]
"""

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import cpu
from .files import write_json

if TYPE_CHECKING:
    from luvc.exporter.timing.latency import Timed


def measure(ratio: float) -> tuple["Timed", float, float]:
    """A schedule solved for time with what it measured, and ms at ratio 1 and under one for FLOPs."""
    from luvc.engines.bundle.folder import Bundle
    from luvc.exporter import ExportConfig
    from luvc.exporter.prepare import prepare
    from luvc.exporter.timing.interleaved import until_certain
    from luvc.exporter.timing.latency import solve_for_latency
    from luvc.exporter.timing.prompt import TimedPrompt

    with tempfile.TemporaryDirectory() as folder:
        one, two = cpu.make_bundles(Path(folder), {"1x": {"ratio": 1}, "flops": {"ratio": ratio}})
        config = ExportConfig.make(
            model=str(Path(folder) / "model"),
            output=Path(folder) / "b",
            ratio=ratio,
            image_sizes=(cpu.SIZE,),
            ratio_of="latency",
        )
        _, timed = solve_for_latency(prepare(config), lambda step: print(" ", step))
        with contextlib.ExitStack() as made:
            pair = [
                made.enter_context(TimedPrompt.of(Bundle.load(p), config.reference_text))
                for p in (one, two)
            ]
            slow, fast = until_certain([prompt.run for prompt in pair])
    return timed, slow, fast


def main(ratio: Annotated[float, typer.Option(help="Ratio to ask for.")] = 2.0) -> None:
    """Measure and write the results."""
    from luvc.tools.bench.machine import provenance

    timed, slow, fast = measure(ratio)
    result = provenance(f"python -m benchmarks.latency_ratio --ratio {ratio:g}") | {
        "model": cpu.SHAPE | {"image_size": cpu.SIZE, "weights": "random, float32"},
        "asked": ratio,
        "latency": {
            "predicted": timed.predicted,
            "measured": timed.measured,
            "baseline_ms": timed.baseline_ms,
            "compressed_ms": timed.compressed_ms,
            "costs_ms": vars(timed.costs),
            "schedule": timed.schedule.model_dump(mode="json"),
        },
        "flops": {"measured": slow / fast, "baseline_ms": slow, "compressed_ms": fast},
    }
    target = Path(__file__).parent / "results" / "latency_ratio.json"
    write_json(target, result)
    print(
        f"asked {ratio:g}x of latency: predicted {timed.predicted:.2f}x, measured {timed.measured:.2f}x"
    )
    print(f"the schedule for {ratio:g}x of FLOPs measures {slow / fast:.2f}x; wrote {target}")


if __name__ == "__main__":
    typer.run(main)
