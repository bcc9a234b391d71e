"""Published shapes on a GPU in PyTorch: ratios interleaved, beside Hugging Face's unmodified forward.

The product's own graph modules, random weights made on the device, fused attention, the SPU's CUDA kernels.
Vision, prefill, both together (time to first token), one decoded token and the SPU alone are recorded as
CUDA graphs, as the engines would run them; eager times stand beside Hugging Face's, which is eager. Writes
headline-MODEL.json after every case, and before a case is held beside Hugging Face.

    python -m benchmarks.gpu.headline --model InternVL2_5-8B [--visual 1024,3328] [--batch 1,8,32]
"""

import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from luvc.engines.bundle.layout import Layout
from luvc.errors import brief
from luvc.exporter.check.torch_runner import TorchRunner
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.planning.defaults import DEFAULTS, PAPER, SolverOptions
from luvc.tools.bench.machine import provenance

from ..files import write_json
from . import RESULTS, shapes
from .case import BASE, Case
from .fused import Choice

ROOM = 32  # slots of the caches beyond the prompt's text


@dataclass(frozen=True)
class Plan:
    """What is measured of one model.

    Attributes:
        sizes: (height, width) of the pictures; None is the family's usual one.
        batches: B.
        ratios: 1 among them.
        seconds: measured time of a case, about.
        options: of the solver.
        compare_up_to: largest batch that is held beside Hugging Face.
    """

    sizes: list[tuple[int, int] | None]
    batches: list[int]
    ratios: list[float]
    seconds: float = 12
    options: SolverOptions = DEFAULTS
    compare_up_to: int = 8


def measure(
    family: Family,
    plan: Plan,
    device: torch.device,
    dtype: torch.dtype,
    report: dict[str, Any],
    target: Path,
) -> None:
    """All cases of a model, small batches first; the report is written as soon as it says more."""
    model = shapes.random_model(family, device, dtype)
    runner = TorchRunner(model, family, shapes.TEXT + ROOM, device, dtype)
    report |= {"runtime": runner.description, "spu": runner.spu, "dtype": str(dtype)[6:]}
    report |= {"parameters": sum(p.numel() for p in model.parameters()), "cases": []}
    chosen: dict[Any, dict[str, Choice]] = {}
    solved = {s: shapes.layouts(family, s, plan.ratios, plan.options) for s in plan.sizes}

    def save(case: dict[str, Any]) -> None:
        write_json(target, report | {"cases": [*report["cases"], case]})

    for batch in plan.batches:
        for size, layouts in solved.items():
            # what is fastest for a picture and its prompt stays so; for decoding it depends on B
            known = {k: v for k, v in chosen.get(size, {}).items() if "decode" not in k}
            inherited = bool(known)  # asked here: the case adds its own
            case = measure_case(runner, layouts, batch, known, plan, save)
            if inherited and "ratios" not in case and "out of memory" not in case["error"]:
                known = {}  # a kernel that runs one batch may refuse another
                case = measure_case(runner, layouts, batch, known, plan, save)
            chosen[size] = known
            report["cases"].append(case)
            write_json(target, report)
            print(f"V {case['visual']}, batch {batch}: {in_one_line(case)}", flush=True)


def measure_case(
    runner: TorchRunner,
    layouts: dict[str, Layout],
    batch: int,
    choices: dict[str, Choice],
    plan: Plan,
    save: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """One case, saved before the comparison; what goes wrong is recorded, and the next one can run."""
    found: dict[str, Any] = {
        "visual": layouts[BASE].visual_tokens,
        "batch": batch,
        "text": shapes.TEXT,
        "image_size": layouts[BASE].image_size,
    }
    case = None
    try:
        case = Case(runner, layouts, batch, choices)
        found["ratios"] = case.measure(plan.seconds)
        save(found)
        if batch <= plan.compare_up_to:
            found |= case.compare(plan.seconds / 2)
        else:
            reason = f"only batches up to {plan.compare_up_to} are held beside Hugging Face"
            found["not_compared"] = reason
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {brief(error)}"
        print(traceback.format_exc(), flush=True)
    found["attention"] = {part: vars(choice) for part, choice in choices.items()}
    del case  # its tensors go before those of the next one come
    if runner.device.type == "cuda":
        torch.cuda.empty_cache()
    return found


def in_one_line(case: dict[str, Any]) -> str:
    """A case in one line: gains over ratio 1 in prefill and in time to first token."""
    if "ratios" not in case:
        return case["error"]
    one = case["ratios"][BASE]
    lines = [f"prefill {one['prefill_ms']['median']:.1f} ms"]
    for ratio, found in case["ratios"].items():
        if ratio != BASE:
            gains = [
                one[p]["median"] / found[p]["median"] for p in ("prefill_ms", "first_token_ms")
            ]
            lines.append(f"{ratio}x: {gains[0]:.2f}x, first token {gains[1]:.2f}x")
    return "; ".join([*lines, *([case["error"]] if "error" in case else [])])


def main(
    model: Annotated[str, typer.Option(help=f"One of {', '.join(shapes.SIZES)}.")],
    visual: Annotated[str, typer.Option(help="Visual tokens at ratio 1.")] = "1024,3328",
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,8,32",
    ratio: Annotated[str, typer.Option(help="Ratios; 1 must be among them.")] = "1,2,3,4",
    dtype: Annotated[str, typer.Option(help="bfloat16 or float16.")] = "bfloat16",
    seconds: Annotated[float, typer.Option(help="Measured time of a case, about.")] = 12,
    paper: Annotated[
        bool,
        typer.Option(help="Not the defaults but the paper as we read it: every part has work."),
    ] = False,
    compare_up_to: Annotated[
        int, typer.Option(help="Largest batch held beside Hugging Face, which loops over windows.")
    ] = 8,
    output: Annotated[Path, typer.Option(help="Folder of the JSON file.")] = RESULTS,
) -> None:
    """Measure one model; exit code 2 without a GPU."""
    if not torch.cuda.is_available():
        print("no CUDA GPU: nothing was measured")
        raise SystemExit(2)
    options = f"--visual {visual} --batch {batch} --ratio {ratio} --dtype {dtype}"
    options += f" --compare-up-to {compare_up_to}"
    options += " --paper" * paper
    report = provenance(f"python -m benchmarks.gpu.headline --model {model} {options}")
    report |= {"model": model, "weights": "random", "paper": paper}
    plan = Plan(
        sizes=[shapes.SIZES[model][int(n)] for n in visual.split(",")],
        batches=[int(n) for n in batch.split(",")],
        ratios=[float(n) for n in ratio.split(",")],
        seconds=seconds,
        options=PAPER if paper else DEFAULTS,
        compare_up_to=compare_up_to,
    )
    with tempfile.TemporaryDirectory() as folder:
        family = shapes.published_family(model, Path(folder))
        target = output / f"headline-{model}{'-paper' * paper}.json"
        measure(family, plan, torch.device("cuda"), getattr(torch, dtype), report, target)


if __name__ == "__main__":
    typer.run(main)
