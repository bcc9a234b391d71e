"""Our bundles beside their peers on one random-weight checkpoint, with float32 and quantised weights.

Hugging Face PyTorch, OpenVINO GenAI without and with its visual-token pruning, ONNX Runtime on our 1x
and 2x bundles; the same weights, picture and question, the same threads, interleaved. OpenVINO
keeps as many visual tokens as our 2x bundle has in the mean of its layers, which is equal prefill
work. int8 and int4 are the language model's weights as whole numbers: OpenVINO's by nncf, ours by
`--weights`; Hugging Face has float32 alone. A peer that does not run is listed with its reason. Writes
benchmarks/results/peers-NAME.json, from which benchmarks.tables prints times and goals in docs/cpu.md.

    python -m benchmarks.peers.run [--family qwen2-vl] [--shape small] [--weights fp32,int8,int4] [--rounds 5]
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from . import checkpoint, instructions
from .goals import WEIGHTS
from .profile import profiles
from .systems import HERE, QUESTION, ROOT, SIZE, Systems, say

WORK = HERE / ".work"  # checkpoints and exports, ignored by git


def main(
    family: Annotated[Literal["qwen2-vl", "internvl"], typer.Option()] = "qwen2-vl",
    shape: Annotated[str, typer.Option(help="tiny, small or 2b (see checkpoint.py).")] = "small",
    weights: Annotated[str, typer.Option(help="Weights to measure.")] = ",".join(WEIGHTS),
    rounds: Annotated[int, typer.Option(help="Measured rounds.")] = 5,
    threads: Annotated[int, typer.Option(help="Threads of every system.")] = 2,
    new_tokens: Annotated[int, typer.Option(help="Tokens of an answer.")] = 32,
    keep: Annotated[
        bool, typer.Option(help="Keep checkpoints and exports for the next run.")
    ] = True,
    only_prepare: Annotated[
        bool, typer.Option("--only-prepare", help="Write what a run needs, and measure nothing.")
    ] = False,
) -> None:
    """Measure everything and write the results."""
    from luvc import console
    from luvc.tools.bench.machine import provenance
    from luvc.tools.bench.tables import tables

    name = f"{family}-{shape}"
    model = checkpoint.write(WORK / name / "model", family, shape).resolve()
    systems = Systems(model, chosen(weights), threads)
    if only_prepare:
        systems.prepare()
        return
    found = measured(systems, rounds, new_tokens)
    options = f"--family {family} --shape {shape} --weights {weights} --rounds {rounds}"
    command = f"python -m benchmarks.peers.run {options} --threads {threads}"
    report = provenance(f"{command} --new-tokens {new_tokens}") | {
        "model": {"family": family} | checkpoint.SHAPES[shape] | {"image_size": SIZE},
        "instructions": instructions.found(),
        **found,
    }
    console.show(*tables(report))
    for label, reason in found["did_not_run"].items():
        print(f"did not run: {label}: {reason}")
    write(report, HERE.parent / "results" / f"peers-{name}.json")
    if not keep:
        shutil.rmtree(WORK / name)


def write(report: dict[str, Any], target: Path) -> None:
    """Write the results, with paths as in any checkout."""
    target.write_text((json.dumps(report, indent=1) + "\n").replace(f"{ROOT}/", ""))
    print(f"wrote {target}")


def chosen(text: str) -> list[str]:
    """The text "fp32,int8" -> its parts, in the order of WEIGHTS."""
    asked = text.split(",")
    if unknown := [w for w in asked if w not in WEIGHTS]:
        raise typer.BadParameter(f"--weights {','.join(unknown)}: choose of {','.join(WEIGHTS)}")
    return [w for w in WEIGHTS if w in asked]


def measured(systems: Systems, rounds: int, new_tokens: int) -> dict[str, Any]:
    """All systems that run, side by side: settings, systems, those that did not run, cases, profiles."""
    from luvc.tools.bench.workers import measure

    with running(systems) as (workers, weights):
        cases = measure(workers, [1], rounds, 1, new_tokens, say)
    for case in cases:
        case["weights"] = weights[case["system"]]
    say("profiling our bundles")
    return {
        "settings": {
            "batches": [1],
            "rounds": rounds,
            "warmup": 1,
            "new_tokens": new_tokens,
            "threads": systems.threads,
            "weights": list(systems.weights),
            "question": QUESTION,
        },
        "systems": [{"name": w.name, "weights": weights[w.name]} | w.about for w in workers],
        "did_not_run": systems.failed,
        "cases": cases,
        "profiles": profiles(systems),
    }


@contextmanager
def running(systems: Systems) -> Iterator[tuple[list[Any], dict[str, str]]]:
    """The workers that start, and the weights of each by label; they end with the block."""
    from luvc.errors import brief

    with ExitStack() as stack:
        workers, weights = [], {}
        for label, kind, start in systems.plan():
            say(f"starting {label}")
            try:
                workers.append(start())
                stack.callback(workers[-1].close)
                weights[label] = kind
            except (ValueError, subprocess.CalledProcessError) as e:  # LuvcError among them
                systems.failed[label] = brief(e)
        if not workers:
            sys.exit("nothing ran: " + "; ".join(f"{k}: {v}" for k, v in systems.failed.items()))
        yield workers, weights


if __name__ == "__main__":
    typer.run(main)
