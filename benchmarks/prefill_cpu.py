"""Ratio 1 against ratio 2 on ONNX Runtime's CPU provider, interleaved in one run.

A random model of InternVL3-1B's language shape (24 layers, hidden 896) with a small vision tower and
V = 1280 visual tokens at ratio 1 (a picture of 4 tiles and a thumbnail). Prints a table and writes
benchmarks/results/prefill_cpu.json.

    python benchmarks/prefill_cpu.py [--rounds 7] [--threads 2]
"""

import datetime
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

HERE = Path(__file__).parent
SHAPE = {
    "layers": 24, "hidden": 896, "kv_heads": 2, "intermediate": 4864, "vision_layers": 6,
    "vision_hidden": 384, "image": 448,
}  # fmt: skip
SIZE = (896, 896)
RATIOS = (1, 2)
NEW_TOKENS = 32
QUESTION = "What is in the picture? Describe the objects, their colours and where they stand."


def make_bundles(folder: Path) -> dict[int, Path]:
    """Write the checkpoint and export it once for each ratio."""
    from luvc.exporter import ExportConfig, export
    from luvc.tools import demo_model

    model = demo_model.write(folder / "model", **SHAPE)
    bundles = {}
    for ratio in RATIOS:
        bundles[ratio] = folder / f"{ratio}x"
        options = {"output": bundles[ratio], "ratio": ratio, "image_sizes": (SIZE,), "check": False}
        export(ExportConfig.make(model=str(model), **options), lambda step: print(" ", step))
    return bundles


def messages():
    """One question about a generated picture."""
    from luvc.engines.validate import sample_picture

    parts = [
        {"type": "image", "image": sample_picture(SIZE, 0)},
        {"type": "text", "text": QUESTION},
    ]
    return [{"role": "user", "content": parts}]


def peak_rss_mib(bundle: Path, threads: int) -> float:
    """Peak resident memory of a process that loads the bundle and answers once, in MiB."""
    command = [sys.executable, __file__, "--peak-of", str(bundle), "--threads", str(threads)]
    return float(subprocess.check_output(command, text=True).split()[-1])


def measure(bundles: dict[int, Path], rounds: int, threads: int) -> dict:
    """Medians and spread of every part; the ratios take turns, the first round warms up."""
    from luvc.engines import VLM

    models = {ratio: VLM.load(path, threads=threads) for ratio, path in bundles.items()}
    seen: dict[int, dict[str, list[float]]] = {ratio: {} for ratio in models}
    for n in range(rounds + 1):
        for ratio, vlm in models.items():
            answer = vlm.generate(messages(), max_new_tokens=NEW_TOKENS, eos_token_id=())
            t = answer.timing
            values = {
                "vision_ms": t.vision_ms,
                "prefill_ms": t.prefill_ms,
                "first_token_ms": t.first_token_ms,
                "decode_ms_per_token": t.decode_ms_per_token,
            }
            for name, value in values.items():
                if n:
                    seen[ratio].setdefault(name, []).append(value)
            print(f"  round {n} {ratio}x " + " ".join(f"{k} {v:.1f}" for k, v in values.items()))
    return {ratio: {k: summary(v) for k, v in parts.items()} for ratio, parts in seen.items()}


def summary(values: list[float]) -> dict[str, float]:
    """Median, minimum and maximum."""
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


def machine() -> dict[str, str | int]:
    """What ran it."""
    import os

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return {"cpu": model, "cores": os.cpu_count() or 0, "system": platform.system()}


def run(
    rounds: Annotated[int, typer.Option(help="Timed rounds.")] = 7,
    threads: Annotated[int, typer.Option(help="Threads of ONNX Runtime.")] = 2,
    peak_of: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Compare ratio 1 and ratio 2."""
    from luvc.engines import VLM, Bundle
    from luvc.versions import versions

    if peak_of:
        VLM.load(peak_of, threads=threads).generate(messages(), max_new_tokens=4)
        status = Path("/proc/self/status").read_text()
        print(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024)  # type: ignore[index]
        return
    with tempfile.TemporaryDirectory() as folder:
        bundles = make_bundles(Path(folder))
        timings = measure(bundles, rounds, threads)
        result = {
            "command": f"python benchmarks/prefill_cpu.py --rounds {rounds} --threads {threads}",
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
            "versions": versions(),
            "model": SHAPE | {"image_size": SIZE, "weights": "random, float32"},
            "ratios": {},
        }
        for ratio, path in bundles.items():
            manifest = Bundle.load(path).manifest
            layout = manifest.layouts[0]
            result["ratios"][str(ratio)] = timings[ratio] | {
                "flops_ratio": round(layout.ratios.prefill, 3),
                "visual_tokens": [layout.visual_tokens, *(s.visual for s in layout.stages[1:])],
                "kv_bytes": manifest.kv_bytes(layout, manifest.reference_text),
                "peak_rss_mib": round(peak_rss_mib(path, threads)),
            }
    target = HERE / "results" / "prefill_cpu.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {target}")


if __name__ == "__main__":
    typer.run(run)
