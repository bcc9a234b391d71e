"""Train the pocket VLM on PocketVQA: `python -m benchmarks.training.train --output DIR`."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from luvc.errors import LuvcError

# Set before the first import that starts threads: forked workers must not inherit a thread pool.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

app = typer.Typer(add_completion=False)

PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "layers": 4,
        "singles": 20,
        "pairs": 4,
        "validate_every": 250,
        "save_every": 250,
        "compile": True,
    },
    "cuda": {
        "steps": 12_000,
        "singles": 448,
        "pairs": 96,
        "pair_every": 2,
        "workers": 15,
        "validate_every": 1000,
        "save_every": 1000,
        "validation": 600,
        "compile": True,
    },
}
"""What differs from TrainConfig's defaults on a device."""

UNLIMITED = 10**9
"""Steps of a run whose length is given in minutes alone."""


@app.command()
def train(
    output: Annotated[Path, typer.Option(help="Folder of the run; a run found there is resumed.")],
    device: Annotated[str, typer.Option(help="cuda or cpu; chosen by what is there.")] = "auto",
    steps: Annotated[int | None, typer.Option(help="Length of the schedule, steps.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Time limit the schedule fits.")] = None,
    stop_after: Annotated[
        float | None, typer.Option(help="Minutes after which this command saves and stops.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Checkpoint directory a new run begins with.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Checkpoint of coarser pictures to begin as and see like.")
    ] = None,
    vision_first: Annotated[
        float | None, typer.Option(help="Part of the run that learns to see alone.")
    ] = None,
    half: Annotated[bool | None, typer.Option(help="Products in bfloat16.")] = None,
    singles: Annotated[int | None, typer.Option(help="One-picture records of a step.")] = None,
    pairs: Annotated[int | None, typer.Option(help="Two-picture records of a step.")] = None,
    layers: Annotated[
        int | None, typer.Option(help="Layers of each stack to begin with: 1, 2, 4 or 8.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    warmup: Annotated[int | None, typer.Option(help="Steps until the highest rate.")] = None,
    muon: Annotated[bool | None, typer.Option(help="Muon for matrices, or AdamW alone.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that draw pictures.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads of PyTorch; 0 leaves them.")] = 0,
    test: Annotated[int | None, typer.Option(help="Test questions asked at the end.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first weights.")] = None,
    compile: Annotated[bool | None, typer.Option(help="Use torch.compile.")] = None,
) -> None:
    """Train, score on the test set, and write a checkpoint in Hugging Face form."""
    steps = UNLIMITED if minutes and steps is None else steps
    schedule = {"steps": steps, "minutes": minutes, "stop_after": stop_after, "test": test}
    model = {"start": start, "teacher": teacher, "layers": layers, "seed": seed}
    batches = {"singles": singles, "pairs": pairs, "workers": workers}
    learning = {"rate": rate, "muon": muon, "compile": compile, "half": half, "warmup": warmup}
    learning["vision_first"] = vision_first
    _run(output, device, threads, schedule | model | batches | learning)


def _run(output: Path, device: str, threads: int, given: dict[str, Any]) -> None:
    import torch
    from transformers.utils import logging

    from .settings import TrainConfig
    from .trainer import Trainer

    options = {name: value for name, value in given.items() if value is not None}
    logging.disable_progress_bar()
    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    config = TrainConfig(**{"device": device, **PRESETS.get(device, {}), **options})
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
    trainer = Trainer(config, output, echo=lambda line: print(line, flush=True))
    if not trainer.run():
        print(f"stopped at step {trainer.step}; the same command resumes")
        return
    print(json.dumps(trainer.finish()["exact_match"], indent=2))


def main() -> None:
    """Run the command; a mendable error is printed without a trace."""
    try:
        app()
    except LuvcError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
