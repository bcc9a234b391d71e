"""The whole study in one command, from a checkpoint to docs/accuracy.md.

python -m benchmarks.accuracy tools/pocket/model

What the product offers on the validation split; the solver's options are chosen on it; then the chosen
options and everything else on the test split, and the spectrum's slopes. float32 throughout, so that a
GPU and a CPU agree. A run that was stopped goes on with the same command. Needs PyTorch, transformers,
numpy, Pillow, pydantic, typer and scikit-image's photographs, and matplotlib for the plots.
"""

import datetime
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from luvc.exporter.problem import DEFAULTS

from ..files import write_json
from . import choose, questions, spectrum
from .journal import Journal
from .methods import METHODS, Method, chosen
from .results import RESULTS, Results
from .study import RATIOS, Study, rows

SPLITS = ("validation", "test")


def run(
    model: Annotated[Path, typer.Argument(help="Checkpoint directory.")],
    limit: Annotated[int, typer.Option(help="Questions of each split.")] = 2000,
    ratio: Annotated[list[float] | None, typer.Option(help="Repeat; default all.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Repeat; default all.")] = None,
    device: Annotated[str, typer.Option(help="cuda or cpu; chosen by what is there.")] = "auto",
    batch: Annotated[int | None, typer.Option(help="Questions at a time.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that draw pictures.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for the JSON files.")] = RESULTS,
) -> None:
    """Measure everything; `python -m benchmarks.accuracy.report` then writes the page."""
    start = time.monotonic()

    def echo(line: str) -> None:
        print(f"{time.monotonic() - start:6.0f} s  {line}", flush=True)

    studies = load(model, limit, device, batch, workers)
    echo(f"{limit} questions of each split are drawn")
    methods = [METHODS[name] for name in method or METHODS]
    ratios = ratio or list(RATIOS)
    validation, test = studies["validation"], studies["test"]
    head = header(model, validation)
    asked = {"questions": limit, "ratios": ratios, "methods": [m.name for m in methods]}
    asked["defaults"] = asdict(DEFAULTS)
    journal = Journal(output / "accuracy.partial.jsonl", head | asked)
    if journal.known:
        echo(f"goes on after {len(journal.known)} results")

    def measure(split: str, methods: list[Method]) -> list[dict]:
        once = partial(journal.once, split)
        return [tell(row, limit, echo) for row in rows(studies[split], methods, ratios, once)]

    found = measure("validation", [m for m in methods if m.options])  # what defaults can move to
    verdicts = choose.verdicts(Results(tasks(validation) | {"rows": found}))
    options = choose.choose(verdicts)
    if choose.changed(options):
        echo(f"chosen on validation: {options}")
        methods = [*methods, chosen(options)]
        found += measure("validation", methods[-1:])[1:]
    slopes = journal.once("validation", "spectrum", lambda: spectrum.measure(validation))
    tested = measure("test", methods)
    head = {"date": datetime.date.today().isoformat()} | head
    save(output, "validation", head, validation, found)
    save(output, "test", head, test, tested)
    write_json(output / "accuracy_choice.json", choose.as_json(verdicts, options))
    write_json(output / "spectrum.json", head | slopes)
    journal.close()
    echo(f"wrote {output}")


def load(model: Path, limit: int, device: str, batch: int | None, workers: int) -> dict[str, Study]:
    """Both splits over one model; pictures are drawn before the GPU is first used."""
    from transformers import AutoModelForImageTextToText

    from luvc.tools.pocket.checkpoint import load_tokenizer

    tokenizer = load_tokenizer(model)
    groups = {split: questions.load(split, limit, tokenizer, workers) for split in SPLITS}
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = batch or (32 if device == "cpu" else 400)  # what a cache holds
    torch.backends.cudnn.allow_tf32 = False
    loaded = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32)
    return {s: Study(loaded, g, torch.device(device), batch) for s, g in groups.items()}


def tell(row: dict, count: int, echo: Callable[[str], None]) -> dict:
    """The row, told as it comes."""
    bits = row.get("right")
    share = f"{int(bits, 16).bit_count() / count:.2%}" if bits else row["why"]
    echo(f"{row['ratio']:g}x {row['method']}: {share}")
    return row


def save(output: Path, split: str, head: dict, study: Study, found: list[dict]) -> None:
    """Write one split's file."""
    data = head | {"split": split} | tasks(study) | {"rows": found}
    write_json(output / f"accuracy_{split}.json", data)


def tasks(study: Study) -> dict[str, list[str]]:
    """The task of every question, in order."""
    named = {n: t for part in study.parts for n, t in zip(part.numbers, part.tasks, strict=True)}
    return {"tasks": [named[number] for number in range(study.count)]}


def header(model: Path, study: Study) -> dict:
    """On what and of which checkpoint."""
    import hashlib

    import transformers

    weights = hashlib.sha256()
    for file in sorted(model.glob("*.safetensors")):
        weights.update(file.read_bytes())
    device = study.device
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    return {
        "device": name, "torch": torch.__version__,
        "transformers": transformers.__version__, "checkpoint": weights.hexdigest(),
        "trained": trained(model), "visual_tokens": study.span,
    }  # fmt: skip


def trained(model: Path) -> dict | None:
    """What results.json beside a trained checkpoint says of its training; None if there is none."""
    path = model / "results.json"
    return json.loads(path.read_text()) if path.is_file() else None


if __name__ == "__main__":
    typer.run(run)
