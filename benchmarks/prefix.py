"""Time to first token of the first and the second question about a picture, ratios 1 and 2.

The model is that of cpu.py, the picture three tiles and a thumbnail: 1024 visual tokens at ratio 1. In every
round each bundle is asked twice about a picture that nobody has seen, by a scheduler as luvc-serve's, and
once with its prefix cache off. Written to benchmarks/results/prefix.json after each round.

    python -m benchmarks.prefix [--rounds 7] [--threads 2]
"""

import contextlib
import io
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import cpu
from .files import write_json

if TYPE_CHECKING:
    from luvc.engines.serving import Scheduler

SIZE = (448, 1344)
RATIOS = (1, 2)
FIRST, SECOND = "What is in the picture?", "Which colours are there, and where?"
ASKED = {"off": FIRST, "first": FIRST, "second": SECOND}
"""What is timed: the first question without the cache, with it, and the second one."""
TARGET = Path(__file__).parent / "results" / "prefix.json"


def picture(seed: int) -> bytes:
    """A generated picture's file."""
    from PIL import Image

    from luvc.engines.generated_pictures import generated_picture

    file = io.BytesIO()
    Image.fromarray(generated_picture(SIZE, seed)).save(file, "JPEG", quality=90)
    return file.getvalue()


def ask(scheduler: "Scheduler", text: str, image: bytes) -> tuple[float, Any]:
    """ms from the request to its first token, and the answer."""
    parts = [{"type": "image", "image": image}, {"type": "text", "text": text}]
    start = time.perf_counter()
    ticket = scheduler.submit([{"role": "user", "content": parts}], max_new_tokens=1)
    answer = ticket.answer
    return (time.perf_counter() - start) * 1e3, answer


def one_round(off: "Scheduler", on: "Scheduler", number: int) -> dict[str, float]:
    """The three questions of a round, of which only the third may find something."""
    image = picture(number)
    times: dict[str, float] = {}
    for kind, text in ASKED.items():
        times[kind], answer = ask(off if kind == "off" else on, text, image)
        assert (answer.reused_tokens > 0) == (kind == "second"), kind
    return times


def summary(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Medians, and those of the ratios within the rounds."""
    pairs = {"speedup": ("first", "second"), "miss_cost": ("first", "off")}
    found: dict[str, Any] = {
        f"{kind}_ms": round(statistics.median(r[kind] for r in rounds), 1) for kind in ASKED
    }
    for name, (a, b) in pairs.items():
        found[name] = round(statistics.median(r[a] / r[b] for r in rounds), 3)
    return found | {"samples_ms": [{k: round(v, 1) for k, v in r.items()} for r in rounds]}


def about(scheduler: "Scheduler") -> dict[str, Any]:
    """Sizes of a bundle's prompts, and what one kept prefix takes."""
    (layout,) = scheduler.vlm.manifest.layouts
    _, answer = ask(scheduler, SECOND, picture(0))
    return {
        "visual_tokens": [stage.visual for stage in layout.stages],
        "prompt_tokens": answer.prompt_tokens + answer.visual_tokens,
        "cached_tokens": answer.reused_tokens,
        "kept_mib": round(scheduler.prefixes.bytes / len(scheduler.prefixes) / 2**20, 2),
    }


def measure(bundles: dict[str, Path], rounds: int, threads: int, result: dict[str, Any]) -> None:
    """Time all bundles, interleaved, and write what there is after each round."""
    from luvc.engines import VLM
    from luvc.engines.serving import Limits, Scheduler
    from luvc.exporter.timing.interleaved import interleaved

    with contextlib.ExitStack() as stack:
        runs = []
        for name, path in bundles.items():
            vlm = stack.enter_context(VLM.load(path, backend="ort", threads=threads))
            off, on = (
                stack.enter_context(Scheduler(vlm, Limits(rows=1, prefix_mib=mib)))
                for mib in (0, Limits.prefix_mib)
            )
            one_round(off, on, 0)  # to warm up
            result["bundles"][name] = about(on)
            runs.append(partial(one_round, off, on))
        seen: dict[str, list[dict[str, float]]] = {name: [] for name in bundles}
        for found in interleaved(runs, range(1, rounds + 1)):
            for name, times in zip(bundles, found, strict=True):
                seen[name].append(times)
                result["bundles"][name] |= summary(seen[name])
                print(name, {k: round(v) for k, v in times.items()})
            write_json(TARGET, result)


def main(
    rounds: Annotated[int, typer.Option(help="Measured rounds.")] = 7,
    threads: Annotated[int, typer.Option(help="Threads of ONNX Runtime.")] = 2,
) -> None:
    """Export, measure and write the results."""
    from luvc.tools.bench.machine import provenance

    command = f"python -m benchmarks.prefix --rounds {rounds} --threads {threads}"
    result = provenance(command) | {
        "model": cpu.SHAPE | {"image_size": SIZE, "weights": "random, float32"},
        "threads": threads,
        "bundles": {},
    }
    wanted: dict[str, dict[str, Any]] = {f"{ratio}x": {"ratio": ratio} for ratio in RATIOS}
    with tempfile.TemporaryDirectory() as folder:
        paths = cpu.make_bundles(Path(folder), wanted, SIZE)
        measure(dict(zip(wanted, paths, strict=True)), rounds, threads, result)
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    typer.run(main)
