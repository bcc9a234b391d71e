"""Our bundles beside their peers on one random-weight checkpoint: TTFT, prefill, decode, memory.

Hugging Face PyTorch, OpenVINO GenAI without and with its visual-token pruning, ONNX Runtime on our 1x
and 2x bundles; the same weights, picture and question, float32, the same threads, interleaved. OpenVINO
keeps as many visual tokens as our 2x bundle has in the mean of its layers, which is equal prefill
work. A peer that does not run is listed with its reason. Writes benchmarks/results/peers-NAME.json.

    python -m benchmarks.peers.run [--family qwen2-vl] [--shape small] [--rounds 5] [--threads 2]
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from . import checkpoint

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORK = HERE / ".work"  # checkpoints and exports, ignored by git
PYTHON = HERE / ".venv" / "bin" / "python"
SIZE = (896, 896)
QUESTION = "What is in the picture? Describe the objects, their colours and where they stand."


def main(
    family: Annotated[Literal["qwen2-vl", "internvl"], typer.Option()] = "qwen2-vl",
    shape: Annotated[str, typer.Option(help="tiny, small or 2b (see checkpoint.py).")] = "small",
    rounds: Annotated[int, typer.Option(help="Measured rounds.")] = 5,
    threads: Annotated[int, typer.Option(help="Threads of every system.")] = 2,
    new_tokens: Annotated[int, typer.Option(help="Tokens of an answer.")] = 32,
    keep: Annotated[
        bool, typer.Option(help="Keep checkpoints and exports for the next run.")
    ] = True,
) -> None:
    """Measure everything and write the results."""
    from luvc import console
    from luvc.tools.bench.machine import provenance
    from luvc.tools.bench.tables import tables

    name = f"{family}-{shape}"
    model = checkpoint.write(WORK / name / "model", family, shape).resolve()
    found = measured(model, threads, rounds, new_tokens)
    options = f"--family {family} --shape {shape} --rounds {rounds} --threads {threads}"
    report = provenance(f"python -m benchmarks.peers.run {options} --new-tokens {new_tokens}") | {
        "model": {"family": family} | checkpoint.SHAPES[shape] | {"image_size": SIZE},
        **found,
    }
    target = HERE.parent / "results" / f"peers-{name}.json"
    text = json.dumps(report, indent=1) + "\n"
    target.write_text(text.replace(f"{ROOT}/", ""))  # paths as in any checkout
    console.show(*tables(report))
    for label, reason in found["did_not_run"].items():
        print(f"did not run: {label}: {reason}")
    print(f"wrote {target}")
    if not keep:
        shutil.rmtree(WORK / name)


def measured(model: Path, threads: int, rounds: int, new_tokens: int) -> dict[str, Any]:
    """All systems that run, side by side: settings, systems, those that did not run, cases."""
    from luvc.tools.bench.workers import measure

    failed: dict[str, str] = {}
    with running(model, threads, failed) as systems:
        cases = measure(systems, [1], rounds, 1, new_tokens, _progress)
    return {
        "settings": {
            "batches": [1],
            "rounds": rounds,
            "warmup": 1,
            "new_tokens": new_tokens,
            "threads": threads,
            "question": QUESTION,
        },
        "systems": [{"name": s.name} | s.about for s in systems],
        "did_not_run": failed,
        "cases": cases,
    }


@contextmanager
def running(model: Path, threads: int, failed: dict[str, str]) -> Iterator[list[Any]]:
    """The systems that start; why another does not is added to `failed`. They end with the block."""
    from luvc.errors import brief

    with ExitStack() as stack:
        systems = []
        for label, start in plan(model, threads, failed):
            _progress(f"starting {label}")
            try:
                systems.append(start())
                stack.callback(systems[-1].close)
            except (ValueError, subprocess.CalledProcessError) as e:  # LuvcError among them
                failed[label] = brief(e)
        if not systems:
            sys.exit("nothing ran: " + "; ".join(f"{k}: {v}" for k, v in failed.items()))
        yield systems


def _progress(step: str) -> None:
    print(" ", step, file=sys.stderr)


def plan(model: Path, threads: int, failed: dict[str, str]) -> Iterator[tuple[str, Callable]]:
    """Name and start of each system, in the order of the table."""
    from luvc.errors import LuvcError, brief
    from luvc.tools.bench.cli import start

    bundles: dict[str, Any] = {}
    for label, ratio in (("luvc 1x", 1.0), ("luvc 2x", 2.0)):
        try:
            bundles[label] = our_bundle(model, ratio)
        except LuvcError as e:
            failed[label] = brief(e)
    shared = {
        "layout": f"{SIZE[0]}x{SIZE[1]}",
        "question": QUESTION,
        "images": [],
        "threads": threads,
    }
    if bundles:
        path = str(next(iter(bundles.values())).path)
        plain = {"kind": "hf", "path": path, "model": str(model)} | shared
        yield "hugging face", lambda: start("hugging face", plain, threads)
    else:
        failed["hugging face"] = "its prompt is made by our bundle"
    full, kept = SIZE[0] * SIZE[1] // 28**2, SIZE[0] * SIZE[1] // 28**2 // 2
    if "luvc 2x" in bundles:
        layout, lm = bundles["luvc 2x"].manifest.layouts[0], bundles["luvc 2x"].manifest.language
        full = layout.baseline_visual_tokens
        kept = sum(layout.schedule.visual_per_layer(lm.layers, layout.visual_tokens)) / lm.layers
    for pruning in (0, round(100 * (1 - kept / full))):
        label = f"openvino {pruning} %" if pruning else "openvino"
        yield label, lambda p=pruning, x=label: openvino(x, model, full, p, threads)
    for label, bundle in bundles.items():
        request = {"kind": "bundle", "path": str(bundle.path), "backend": "ort"} | shared
        yield label, lambda r=request, x=label: start(x, r, threads)


def our_bundle(model: Path, ratio: float) -> Any:
    """The bundle of a ratio, exported unless it is there as it would be made."""
    from luvc.engines import Bundle
    from luvc.exporter import ExportConfig, export

    path = model.parent / f"{ratio:g}x"
    config = ExportConfig.make(
        model=str(model), output=path, ratio=ratio, image_sizes=(SIZE,), check=False
    )
    if path.is_dir() and (found := Bundle.load(path)).manifest.solver == config.solved_for:
        return found
    return export(config, _progress)


def openvino(label: str, model: Path, visual: int, pruning: int, threads: int) -> Any:
    """OpenVINO GenAI on an export of the same checkpoint, in the peers' environment."""
    from luvc.engines.generated_pictures import generated_picture
    from luvc.tools.bench.workers import System

    peers_environment()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    exported, picture = model.parent / "openvino", model.parent / "picture.npy"
    if not exported.is_dir():
        draft = exported.with_name("openvino-draft")
        shutil.rmtree(draft, ignore_errors=True)
        run = subprocess.run(
            [PYTHON, "-m", "benchmarks.peers.openvino_export", model, draft],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
        )
        if run.returncode:
            raise ValueError(run.stderr.strip().splitlines()[-1])
        draft.rename(exported)
    np.save(picture, generated_picture(SIZE, 0))
    request = {
        "model": str(exported),
        "picture": str(picture),
        "question": QUESTION,
        "visual_tokens": visual,
        "pruning": pruning,
        "threads": threads,
    }
    command = [str(PYTHON), "-m", "benchmarks.peers.openvino_system", json.dumps(request)]
    return System(label, command, environment)


def peers_environment() -> None:
    """Make the peers' own environment, once."""
    if (ready := HERE / ".venv" / "ready").is_file():
        return
    subprocess.run([sys.executable, "-m", "venv", HERE / ".venv"], check=True)
    packages = ["--quiet", "--requirement", HERE / "requirements.txt"]
    subprocess.run([PYTHON, "-m", "pip", "install", *packages], check=True)
    ready.touch()


if __name__ == "__main__":
    typer.run(main)
