"""luvc-bench on a random model of InternVL3-1B's language shape, beside Hugging Face: ratios 1 and 2.

"2x paper" is ratio 2 as we read the paper (PAPER: OIM in the vision tower, a low-pass, later stages).
24 layers, hidden 896, a small vision tower and V = 1280 visual tokens at ratio 1 (a picture of 4 tiles
and a thumbnail). Writes benchmarks/results/bench_cpu.json, or bench_cpu_batches.json of larger batches.

    python -m benchmarks.cpu [--rounds 5] [--threads 2] [--batch 1]
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from .files import write_json

HERE = Path(__file__).parent
SHAPE: dict[str, Any] = {
    "layers": 24,
    "hidden": 896,
    "kv_heads": 2,
    "intermediate": 4864,
    "vision_layers": 6,
    "vision_hidden": 384,
    "image": 448,
}
SIZE = (896, 896)


def make_bundles(
    folder: Path, wanted: dict[str, dict[str, Any]], size: tuple[int, int] = SIZE
) -> list[Path]:
    """Write the checkpoint and export it once for each name with these options."""
    from luvc.exporter import ExportConfig, export
    from luvc.tools.demo import random_checkpoint

    model = random_checkpoint.write(folder / "model", **SHAPE)
    for name, options in wanted.items():
        config = ExportConfig.make(
            model=str(model), output=folder / name, image_sizes=(size,), check=False, **options
        )
        export(config, lambda step: print(" ", step))
    return [folder / name for name in wanted]


def main(
    rounds: Annotated[int, typer.Option(help="Measured rounds.")] = 5,
    threads: Annotated[int, typer.Option(help="Threads of every system.")] = 2,
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1",
) -> None:
    """Export, measure and write the results."""
    from luvc.exporter.planning.defaults import PAPER

    wanted = {"1x": {"ratio": 1}, "2x": {"ratio": 2}, "2x paper": {"ratio": 2} | vars(PAPER)}
    target = HERE / "results" / ("bench_cpu.json" if batch == "1" else "bench_cpu_batches.json")
    options = ["--rounds", str(rounds), "--threads", str(threads), "--batch", batch]
    with tempfile.TemporaryDirectory() as folder:
        bundles = map(str, make_bundles(Path(folder), wanted))
        command = [
            sys.executable,
            "-m",
            "luvc.tools.bench.cli",
            *bundles,
            "--compare",
            "hf",
            *options,
        ]
        subprocess.run([*command, "--output", str(target)], check=True)
    report = json.loads(target.read_text())
    report["command"] = " ".join(["python -m benchmarks.cpu", *options])
    for system in report["systems"]:
        system["model"] = "random weights"
    report["model"] = SHAPE | {"image_size": SIZE, "weights": "random, float32"}
    write_json(target, report)
    print(f"wrote {target}")


if __name__ == "__main__":
    typer.run(main)
