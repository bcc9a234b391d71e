"""luvc-serve beside a real Triton server (CPU), ratio 1 and ratio 2: closed loops of 1, 4, 16 and 32 clients.

The model is the demo checkpoint's architecture in a shape where the language model's prefill is most of
a request, as it is for real vision-language models: see SHAPE. Every client asks about its own generated
picture, waits for the end of its answer and asks again, with the prefix cache off. No answer ends early. All
is streamed over HTTP, as a client would see it.

All servers are up; at each number of clients they are interleaved, ROUNDS times, and only one is under load.
Servers and clients share this machine's cores. Then, with --minutes, all are loaded at once for that long
and the memory of all their processes is followed.

    make .triton/ready
    python -m benchmarks.serving [--seconds 30] [--rounds 3] [--minutes 10]
"""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from .files import write_json
from .serving_clients import LUVC, TRITON, Load, Loop, Target, closed_loop, summary

ROOT = Path(__file__).parent.parent
SHAPE: dict = {"layers": 12, "hidden": 384, "intermediate": 1536, "vision_layers": 2, "image": 336}
SIZE = (672, 672)  # four tiles and a thumbnail
RATIOS = (1, 2)
PREFILL = 2  # prompts run together: compute-bound on a CPU, so more would only delay the first
CAPACITY = 192  # text tokens of a conversation


def make_bundles(folder: Path) -> dict[int, Path]:
    """Write the checkpoint and export it once for each ratio."""
    from luvc.exporter import ExportConfig, export
    from luvc.tools.demo import random_checkpoint

    model = random_checkpoint.write(folder / "model", endless=True, **SHAPE)
    bundles = {}
    for ratio in RATIOS:
        bundles[ratio] = folder / f"{ratio}x"
        config = ExportConfig.make(
            model=str(model),
            output=bundles[ratio],
            ratio=ratio,
            image_sizes=(SIZE,),
            check=False,
            text_capacity=CAPACITY,
            reference_text=32,
        )
        export(config, lambda step: print(" ", step))
    return bundles


def find_bundles(folder: Path) -> dict[int, Path]:
    """The bundle of each ratio, made unless all are there; those for other conversations are refused."""
    from luvc.engines import Bundle

    found = {ratio: folder / f"{ratio}x" for ratio in RATIOS}
    if not all(path.exists() for path in found.values()):
        return make_bundles(folder)
    for path in found.values():
        if (capacity := Bundle.load(path).manifest.text_capacity) != CAPACITY:
            sys.exit(
                f"{path} holds conversations of {capacity} text tokens, and {CAPACITY} are asked for: "
                "delete it, and both bundles are made anew, or name another folder with --bundles"
            )
    return found


def memory_mib(pid: int) -> float:
    """Resident memory of a server and its models' processes."""
    import psutil

    root = psutil.Process(pid)
    return sum(p.memory_info().rss for p in (root, *root.children(recursive=True))) / 2**20


async def followed(target: Target, load: Load, seconds: float) -> dict[str, Any]:
    """Memory of a server under load, once a tenth of the time after a tenth to warm up."""

    async def follow() -> list[float]:
        samples = []
        for _ in range(10):
            await asyncio.sleep(seconds / 10)
            samples.append(round(memory_mib(target.pid), 1))
        return samples

    loop, samples = await asyncio.gather(closed_loop(target, load, seconds), follow())
    return {
        "clients": load.clients, "tokens": load.tokens, "seconds": seconds, "requests": len(loop.whole),
        "failures": len(loop.failures), "rss_mib": samples,
    }  # fmt: skip


def under_load(running: list[Target], load: Load, rounds: int, seconds: float) -> dict[str, Any]:
    """Closed loops of the servers, interleaved, after short ones to warm up."""
    seen: list[list[Loop]] = [[] for _ in running]
    for target in running:
        asyncio.run(closed_loop(target, load, 3))
    for _ in range(rounds):
        for loops, target in zip(seen, running, strict=True):
            loops.append(asyncio.run(closed_loop(target, load, seconds)))
    row: dict[str, Any] = {TRITON: {}, LUVC: {}}
    for loops, target in zip(seen, running, strict=True):
        row[target.kind][str(target.ratio)] = summary(loops)
    print(f"  {load.clients} clients, {load.tokens} tokens:", json.dumps(row))
    return row


async def all_followed(running: list[Target], load: Load, seconds: float) -> dict[str, Any]:
    """`followed` for all servers at once."""
    found = await asyncio.gather(*(followed(target, load, seconds) for target in running))
    memory: dict[str, Any] = {TRITON: {}, LUVC: {}}
    for target, of in zip(running, found, strict=True):
        print(f"  {target.kind} {target.ratio}x memory:", of["rss_mib"])
        memory[target.kind][str(target.ratio)] = of
    return memory


@contextlib.contextmanager
def triton(bundle: Path, folder: Path, place: Path, threads: int, rows: int) -> Iterator[Any]:
    """A Triton server that starts."""
    from luvc.engines import Bundle
    from luvc.engines.serving import Limits
    from luvc.tools.triton.repository import Bounds, Options, write
    from luvc.tools.triton.server import Ports, Server, find_server

    options = Options(Limits(rows, PREFILL, prefix_mib=0), Bounds(), threads=threads)
    write(Bundle.load(bundle), folder, options)
    log = folder.with_suffix(".log")
    with Server(find_server(place), folder, Ports.free(), log=log) as server:
        yield server


@contextlib.contextmanager
def luvc_serve(bundle: Path, log: Path, threads: int, rows: int) -> Iterator[tuple[Any, int]]:
    """A process of luvc-serve that starts, and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "luvc.tools.serve.cli", str(bundle), "--port", str(port)]
    command += ["--served-model-name", LUVC, "--rows", str(rows), "--prefill", str(PREFILL)]
    command += ["--prefix-cache", "0", "--threads", str(threads)]
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        yield process, port
    finally:
        process.terminate()
        process.wait(60)


@contextlib.contextmanager
def servers(bundles: dict[int, Path], folder: Path, place: Path, threads: int, rows: int):
    """A ready server of each kind for each ratio."""
    with contextlib.ExitStack() as stack:
        running: list[Target] = []
        for ratio, bundle in bundles.items():
            theirs = stack.enter_context(
                triton(bundle, folder / f"repository-{ratio}x", place, threads, rows)
            )
            log = folder / f"luvc-serve-{ratio}x.log"
            ours, port = stack.enter_context(luvc_serve(bundle, log, threads, rows))
            _wait(theirs.ready, lambda server=theirs: server.exit_code, theirs.tail)
            _wait(lambda port=port: _answers(port), ours.poll, log.read_text)
            running.append(Target(TRITON, ratio, theirs.ports.http, theirs.pid))
            running.append(Target(LUVC, ratio, port, ours.pid))
        yield running


def _wait(ready: Callable[[], bool], ended: Callable[[], int | None], log: Callable[[], str]):
    while not ready():
        if ended() is not None:
            sys.exit(log())
        time.sleep(0.1)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except OSError:
        return False


def describe(bundles: dict[int, Path]) -> dict[str, Any]:
    """What differs between the two models."""
    from luvc.engines import Bundle

    found = {}
    for ratio, path in bundles.items():
        manifest = Bundle.load(path).manifest
        (layout,) = manifest.layouts
        found[str(ratio)] = {
            "flops_ratio": {k: round(v, 3) for k, v in layout.ratios.model_dump().items()},
            "visual_tokens": [layout.visual_tokens, *(s.visual for s in layout.stages[1:])],
            "cache_mib": round(manifest.kv_bytes(layout) / 2**20, 2),
        }
    return found


def settings(bundles: dict[int, Path], rows: int) -> dict[str, Any]:
    """What is served and how, beside the loads and the memory to come."""
    return {
        "model": SHAPE | {"image_size": SIZE, "weights": "random, float32"},
        "limits": {"rows": rows, "prefill": PREFILL},
        "bundles": describe(bundles),
        "loads": {},
        "memory": {},
    }


def run(
    seconds: Annotated[float, typer.Option(help="Of each loop.")] = 30,
    rounds: Annotated[int, typer.Option(help="Loops of each ratio at each load.")] = 3,
    minutes: Annotated[float, typer.Option(help="Of the memory part.")] = 10,
    clients: Annotated[str, typer.Option(help="Numbers of clients.")] = "1,4,16,32",
    tokens: Annotated[str, typer.Option(help="Of answers, each length a part.")] = "8",
    threads: Annotated[int, typer.Option(help="Threads of ONNX Runtime.")] = 2,
    rows: Annotated[int, typer.Option(help="Answers made at once.")] = 16,
    server: Annotated[Path, typer.Option(help="Folder of install.sh.")] = ROOT / ".triton",
    bundles: Annotated[Path | None, typer.Option(help="Keep or find the bundles here.")] = None,
    output: Annotated[Path, typer.Option()] = ROOT / "benchmarks/results/serving.json",
) -> None:
    """Compare both servers at ratio 1 and ratio 2 under load."""
    from luvc.tools.bench.machine import provenance

    command = (
        f"python -m benchmarks.serving --seconds {seconds:g} --rounds {rounds} --minutes {minutes:g} "
        f"--clients {clients} --tokens {tokens} --threads {threads} --rows {rows}"
    )
    loads = [
        Load(int(n), int(length), SIZE) for length in tokens.split(",") for n in clients.split(",")
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = find_bundles(bundles or folder)
        result = provenance(command) | settings(made, rows)
        with servers(made, folder, server, threads, rows) as running:
            for load in loads:
                of_length = result["loads"].setdefault(str(load.tokens), {})
                of_length[str(load.clients)] = under_load(running, load, rounds, seconds)
                write_json(output, result)  # what was measured outlives what comes next
            if minutes:
                result["memory"] = asyncio.run(all_followed(running, loads[-1], 60 * minutes))
    write_json(output, result)
    print(f"wrote {output}")


if __name__ == "__main__":
    typer.run(run)
