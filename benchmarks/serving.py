"""Ratio 1 against ratio 2 on a real Triton server (CPU): closed loops of 1, 4, 16 and 32 clients.

The model is the demo checkpoint's architecture in a shape where the language model's prefill is most of
a request, as it is for real vision-language models: see SHAPE. Every client asks about its own generated
picture, waits for the end of its answer and asks again, with the prefix cache off; answers have TOKENS
tokens, which random weights never end earlier. All is streamed over HTTP, as a client would see it.

Both servers are up; at each number of clients the ratios are interleaved, ROUNDS times, and only one is under
load. Server and clients share this machine's cores. Then, with --minutes, both servers are loaded at once
for that long and the memory of all their processes is followed.

    make .triton/ready
    python -m benchmarks.serving [--seconds 30] [--rounds 3] [--minutes 10]
"""

import asyncio
import base64
import contextlib
import functools
import io
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

ROOT = Path(__file__).parent.parent
SHAPE: dict = {"layers": 12, "hidden": 384, "intermediate": 1536, "vision_layers": 2, "image": 336}
SIZE = (672, 672)  # four tiles and a thumbnail
RATIOS = (1, 2)
TOKENS = 8  # of an answer
PREFILL = 2  # prompts run together: compute-bound on a CPU, so more would only delay the first
CAPACITY = 64  # text tokens of a conversation
QUESTION = "What is in the picture?"


@dataclass
class Loop:
    """What the clients of one loop saw, times in seconds."""

    wall: float = 0.0
    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    tokens: int = 0
    failures: list[str] = field(default_factory=list)


def make_bundles(folder: Path) -> dict[int, Path]:
    """Write the checkpoint and export it once for each ratio."""
    from luvc.exporter import ExportConfig, export
    from luvc.tools.demo import random_checkpoint

    model = random_checkpoint.write(folder / "model", **SHAPE)
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
    """The bundle of each ratio, made unless all are there."""
    found = {ratio: folder / f"{ratio}x" for ratio in RATIOS}
    return found if all(path.exists() for path in found.values()) else make_bundles(folder)


@functools.cache
def bodies(count: int) -> list[bytes]:
    """A request for each client, with a picture of its own."""
    from PIL import Image

    from luvc.engines.generated_pictures import generated_picture

    found = []
    for seed in range(count):
        file = io.BytesIO()
        Image.fromarray(generated_picture(SIZE, seed)).save(file, "JPEG", quality=90)
        request = {
            "text_input": QUESTION, "image": base64.b64encode(file.getvalue()).decode(),
            "max_tokens": TOKENS, "stream": True,
        }  # fmt: skip
        found.append(json.dumps(request).encode())
    return found


async def client(session: Any, url: str, body: bytes, end: float, seen: Loop) -> None:
    """Ask until `end`, one question after the other."""
    while time.perf_counter() < end:
        start = time.perf_counter()
        first = last = None
        try:
            async with session.post(url, data=body) as response:
                async for line in response.content:
                    if line.startswith(b"data: "):
                        last = json.loads(line[6:])
                        first = first or time.perf_counter()
            assert last is not None and first is not None, "no answer"
            if "error" in last:
                raise RuntimeError(last["error"])
            seen.first.append(first - start)
            seen.whole.append(time.perf_counter() - start)
            seen.tokens += last["completion_tokens"]
        except Exception as error:
            seen.failures.append(f"{type(error).__name__}: {error}")


async def closed_loop(port: int, clients: int, seconds: float) -> Loop:
    """Load one server for a while."""
    import aiohttp

    url = f"http://127.0.0.1:{port}/v2/models/luvc_vlm/generate_stream"
    seen, requests = Loop(), bodies(clients)
    start = time.perf_counter()
    timeout = aiohttp.ClientTimeout(total=600)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        asks = [client(session, url, b, start + seconds, seen) for b in requests]
        await asyncio.gather(*asks)
    seen.wall = time.perf_counter() - start
    return seen


def quantile(values: list[float], share: float) -> float:
    """Milliseconds that `share` of the values do not exceed."""
    ordered = sorted(values)
    return round(1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


def summary(loops: list[Loop]) -> dict[str, Any]:
    """Medians of the rounds' throughput; quantiles over all requests."""
    if not all(x.whole for x in loops):
        sys.exit("a loop had no answers; see the failures above, or give it more --seconds")
    first = [t for x in loops for t in x.first]
    whole = [t for x in loops for t in x.whole]
    return {
        "requests_per_s": round(statistics.median(len(x.whole) / x.wall for x in loops), 3),
        "tokens_per_s": round(statistics.median(x.tokens / x.wall for x in loops), 2),
        "ttft_p50_ms": quantile(first, 0.5),
        "ttft_p95_ms": quantile(first, 0.95),
        "latency_p50_ms": quantile(whole, 0.5),
        "requests": len(whole),
        "failures": sum(len(x.failures) for x in loops),
    }


def memory_mib(pid: int) -> float:
    """Resident memory of a server and its models' processes."""
    import psutil

    root = psutil.Process(pid)
    return sum(p.memory_info().rss for p in (root, *root.children(recursive=True))) / 2**20


async def followed(server: Any, clients: int, seconds: float) -> dict[str, Any]:
    """Memory of a server under load, once a tenth of the time after a tenth to warm up."""

    async def follow() -> list[float]:
        samples = []
        for _ in range(10):
            await asyncio.sleep(seconds / 10)
            samples.append(round(memory_mib(server.pid), 1))
        return samples

    loop, samples = await asyncio.gather(closed_loop(server.ports.http, clients, seconds), follow())
    return {
        "clients": clients, "seconds": seconds, "requests": len(loop.whole),
        "failures": len(loop.failures), "rss_mib": samples,
    }  # fmt: skip


def under_load(
    running: dict[int, Any], clients: int, rounds: int, seconds: float
) -> dict[str, Any]:
    """Closed loops of the ratios, interleaved, after a short one to warm up."""
    seen: dict[int, list[Loop]] = {ratio: [] for ratio in running}
    for server in running.values():
        asyncio.run(closed_loop(server.ports.http, clients, 3))
    for _ in range(rounds):
        for ratio, server in running.items():
            loop = asyncio.run(closed_loop(server.ports.http, clients, seconds))
            seen[ratio].append(loop)
            for failure in loop.failures[:3]:
                print("  failure:", failure)
    row = {str(ratio): summary(loops) for ratio, loops in seen.items()}
    gain = row["2"]["requests_per_s"] / row["1"]["requests_per_s"]
    print(f"  {clients} clients: {gain:.2f}x", json.dumps(row))
    return row | {"throughput_gain": round(gain, 3)}


async def both_followed(running: dict[int, Any], clients: int, seconds: float) -> dict[str, Any]:
    """`followed` for all servers at once."""
    found = await asyncio.gather(*(followed(s, clients, seconds) for s in running.values()))
    for ratio, memory in zip(running, found, strict=True):
        print(f"  {ratio}x memory:", memory["rss_mib"])
    return {str(ratio): memory for ratio, memory in zip(running, found, strict=True)}


@contextlib.contextmanager
def servers(bundles: dict[int, Path], folder: Path, place: Path, threads: int, rows: int):
    """A ready server for each ratio."""
    from luvc.engines import Bundle
    from luvc.engines.serving import Limits
    from luvc.tools.triton.repository import Bounds, Options, write
    from luvc.tools.triton.server import Ports, Server, find_server

    with contextlib.ExitStack() as stack:
        running = {}
        for ratio, bundle in bundles.items():
            repository = folder / f"repository-{ratio}x"
            options = Options(Limits(rows, PREFILL, prefix_mib=0), Bounds(), threads=threads)
            write(Bundle.load(bundle), repository, options)
            log = folder / f"server-{ratio}x.log"
            running[ratio] = Server(find_server(place), repository, Ports.free(), log=log)
            stack.enter_context(running[ratio])
        for server in running.values():
            while not server.ready():
                if server.exit_code is not None:
                    sys.exit(server.tail())
                time.sleep(0.1)
        yield running


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
        "new_tokens": TOKENS,
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
    threads: Annotated[int, typer.Option(help="Threads of ONNX Runtime.")] = 2,
    rows: Annotated[int, typer.Option(help="Answers made at once.")] = 16,
    server: Annotated[Path, typer.Option(help="Folder of install.sh.")] = ROOT / ".triton",
    bundles: Annotated[Path | None, typer.Option(help="Keep or find the bundles here.")] = None,
    output: Annotated[Path, typer.Option()] = ROOT / "benchmarks/results/serving.json",
) -> None:
    """Compare ratio 1 and ratio 2 under load."""
    from luvc.tools.bench.machine import provenance

    command = (
        f"python -m benchmarks.serving --seconds {seconds:g} --rounds {rounds} "
        f"--minutes {minutes:g} --threads {threads} --rows {rows}"
    )
    loads = [int(n) for n in clients.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = find_bundles(bundles or folder)
        result = provenance(command) | settings(made, rows)
        with servers(made, folder, server, threads, rows) as running:
            for load in loads:
                result["loads"][str(load)] = under_load(running, load, rounds, seconds)
            output.write_text(json.dumps(result, indent=1) + "\n")
            if minutes:
                result["memory"] = asyncio.run(both_followed(running, loads[-1], 60 * minutes))
    output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {output}")


if __name__ == "__main__":
    typer.run(run)
