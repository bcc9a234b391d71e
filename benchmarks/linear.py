"""A prompt through linear attention, beside Hugging Face: ratios 1 and 2 of a random Qwen3.5.

Eight layers, of which every fourth has keys and values, hidden 1024, 16 heads of 128; pictures of two sizes
make prompts of about 300 and 970 tokens. Writes benchmarks/results/linear.json.

    python -m benchmarks.linear [--rounds 9] [--threads 2]
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from .files import write_json

SHAPE: dict[str, Any] = {
    "num_hidden_layers": 8,
    "hidden_size": 1024,
    "intermediate_size": 3584,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 16,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 2,
    "rope_parameters": {"mrope_section": [11, 11, 10]},  # a quarter of half a head
}
SIZES = ((512, 512), (960, 992))
RATIOS = (1, 2)
TARGET = Path(__file__).parent / "results" / "linear.json"


def make_bundle(folder: Path) -> Path:
    """Write the checkpoint, and a bundle of all sizes and ratios."""
    from luvc.exporter import ExportConfig, export
    from tests.families import checkpoints

    largest = max(h * w for h, w in SIZES)
    model = checkpoints.write(
        "qwen3_5",
        folder / "model",
        images={"size": {"shortest_edge": 64 * 64, "longest_edge": largest}},
        text_config=SHAPE,
        vision_config={"out_hidden_size": SHAPE["hidden_size"]},
    )
    config = ExportConfig.make(
        model=str(model), output=folder / "luvc", image_sizes=SIZES, ratios=RATIOS, check=False
    )
    export(config, lambda step: print(" ", step))
    return folder / "luvc"


def measure(bundle: Path, size: tuple[int, int], options: list[str]) -> dict[str, Any]:
    """A luvc-bench report of all ratios of a size beside Hugging Face."""
    from luvc.engines.bundle.folder import Bundle

    layouts = Bundle.load(bundle).manifest.layouts
    layout = next(x for x in layouts if x.image_size == size)
    ratios = [part for ratio in RATIOS for part in ("--ratio", f"{ratio}x")]
    command = [sys.executable, "-m", "luvc.tools.bench.cli", str(bundle), "--compare", "hf"]
    command += ["--backend", "ort", "--batch", "1", "--new-tokens", "8", "--layout", layout.name]
    target = bundle.parent / f"{layout.name}.json"
    subprocess.run([*command, *ratios, *options, "--output", str(target)], check=True)
    return json.loads(target.read_text())


def summary(reports: list[dict[str, Any]], rounds: int, threads: int) -> dict[str, Any]:
    """What is written of the reports of all sizes."""
    head = {"command": f"python -m benchmarks.linear --rounds {rounds} --threads {threads}"}
    head |= {name: reports[-1][name] for name in ("date", "machine", "versions")}
    cases = [{"size": s, "cases": r["cases"]} for s, r in zip(SIZES, reports, strict=True)]
    model = SHAPE | {"image_sizes": SIZES, "weights": "random, float32"}
    return head | {"model": model, "threads": threads, "rounds": rounds, "prompts": cases}


def main(
    rounds: Annotated[int, typer.Option(help="Measured rounds.")] = 9,
    threads: Annotated[int, typer.Option(help="Threads of every system.")] = 2,
) -> None:
    """Export, measure and write the results."""
    options = ["--rounds", str(rounds), "--threads", str(threads)]
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder))
        reports = [measure(bundle, size, options) for size in SIZES]
    write_json(TARGET, summary(reports, rounds, threads))
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    typer.run(main)
