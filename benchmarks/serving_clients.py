"""Clients in closed loops against a server, and what they see."""

import asyncio
import base64
import functools
import io
import json
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any

QUESTION = "What is in the picture?"
TRITON, LUVC = "Triton", "luvc-serve"


@dataclass(frozen=True)
class Target:
    """A server.

    Attributes:
        kind: TRITON or LUVC, whose APIs differ.
        ratio: of its bundle.
        port: of HTTP.
        pid: of its first process.
    """

    kind: str
    ratio: int
    port: int
    pid: int

    @property
    def url(self) -> str:
        """Where questions go."""
        path = (
            "v2/models/luvc_vlm/generate_stream" if self.kind == TRITON else "v1/chat/completions"
        )
        return f"http://127.0.0.1:{self.port}/{path}"


@dataclass(frozen=True)
class Load:
    """What clients ask.

    Attributes:
        clients: that ask at once, each about a picture of its own.
        tokens: of each answer.
        size: of the pictures, [width, height].
    """

    clients: int
    tokens: int
    size: tuple[int, int]


@dataclass
class Loop:
    """What the clients of one loop saw, times in seconds."""

    wall: float = 0.0
    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    tokens: int = 0
    failures: list[str] = field(default_factory=list)


@functools.cache
def bodies(kind: str, count: int, size: tuple[int, int], tokens: int) -> list[bytes]:
    """A request for each client, with a picture of its own."""
    from PIL import Image

    from luvc.engines.generated_pictures import generated_picture

    found = []
    for seed in range(count):
        file = io.BytesIO()
        Image.fromarray(generated_picture(size, seed)).save(file, "JPEG", quality=90)
        picture = base64.b64encode(file.getvalue()).decode()
        found.append(json.dumps(_request(kind, picture, tokens)).encode())
    return found


def _request(kind: str, picture: str, tokens: int) -> dict[str, Any]:
    common = {"max_tokens": tokens, "stream": True}
    if kind == TRITON:
        return common | {"text_input": QUESTION, "image": picture}
    url = {"url": f"data:image/jpeg;base64,{picture}"}
    parts = [{"type": "image_url", "image_url": url}, {"type": "text", "text": QUESTION}]
    turn = {"role": "user", "content": parts}
    return common | {
        "model": LUVC,
        "messages": [turn],
        "stream_options": {"include_usage": True},
    }


def completion_tokens(events: list[dict[str, Any]], wanted: int) -> int:
    """Of the events of an answer, whichever server they are of.

    Raises:
        RuntimeError: it is an error, or no whole answer, or one of fewer tokens than `wanted`.
    """
    errors = [event["error"] for event in events if "error" in event]
    counts = [event["completion_tokens"] for event in events if "completion_tokens" in event]
    counts += [event["usage"]["completion_tokens"] for event in events if event.get("usage")]
    if errors or not counts:
        raise RuntimeError(errors[0] if errors else "no whole answer")
    if counts[-1] < wanted:
        raise RuntimeError(f"an answer of {counts[-1]} tokens in place of {wanted}")
    return counts[-1]


async def client(session: Any, url: str, body: bytes, wanted: int, end: float, seen: Loop) -> None:
    """Ask for `wanted` tokens until `end`, one question after the other."""
    while time.perf_counter() < end:
        start = time.perf_counter()
        first, events = None, []
        try:
            async with session.post(url, data=body) as response:
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        events.append(json.loads(line[6:]))
                        first = first or time.perf_counter()
            tokens = completion_tokens(events, wanted)
            assert first is not None
            seen.tokens += tokens
            seen.first.append(first - start)
            seen.whole.append(time.perf_counter() - start)
        except Exception as error:
            seen.failures.append(f"{type(error).__name__}: {error}")


async def closed_loop(target: Target, load: Load, seconds: float) -> Loop:
    """Load one server for a while."""
    import aiohttp

    seen, requests = Loop(), bodies(target.kind, load.clients, load.size, load.tokens)
    start = time.perf_counter()
    timeout = aiohttp.ClientTimeout(total=600)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        end, wanted = start + seconds, load.tokens
        asks = [client(session, target.url, body, wanted, end, seen) for body in requests]
        await asyncio.gather(*asks)
    seen.wall = time.perf_counter() - start
    return seen


def quantile(values: list[float], share: float) -> float:
    """Milliseconds that `share` of the values do not exceed."""
    ordered = sorted(values)
    return round(1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


def summary(loops: list[Loop]) -> dict[str, Any]:
    """Medians of the rounds' throughput; quantiles over all requests."""
    for failure in [failure for x in loops for failure in x.failures][:3]:
        print("  failure:", failure)
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
