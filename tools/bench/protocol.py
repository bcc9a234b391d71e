"""The worker's side of a benchmark: one JSON object a line in, one out. Standard library only.

A worker is a process that holds one system under test. It answers `ready` once with what it is, then
`run` requests, each with the figures of one batch, until its input ends. Whatever else it prints
goes to stderr. Workers of other environments (benchmarks/peers) import this file alone.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Figures = dict[str, Any]


def serve(load: Callable[[], tuple[dict[str, Any], Callable[[int, int], Figures]]]) -> None:
    """Load a system and answer requests.

    Args:
        load: returns what the system is (for people and the report), and a function
            (batch, new tokens) -> figures of one run.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print what they like

    def answer(data: dict[str, Any]) -> None:
        answers.write(json.dumps(data) + "\n")
        answers.flush()

    try:
        start = time.perf_counter()
        about, run = load()
        answer({"ready": about | {"load_ms": (time.perf_counter() - start) * 1e3}})
        for line in sys.stdin:
            request = json.loads(line)
            answer({"figures": run(request["batch"], request["new_tokens"])})
    except ValueError as e:  # LuvcError, and the refusals of libraries
        answer({"error": str(e), "kind": type(e).__name__})
        raise


class Stopwatch:
    """Milliseconds since it was made, and at each named moment.

    Args:
        synchronise: called before every reading, to wait for an accelerator.
    """

    def __init__(self, synchronise: Callable[[], None] = lambda: None):
        self._synchronise = synchronise
        self.moments: list[float] = []
        self._start = self._read()

    def _read(self) -> float:
        self._synchronise()
        return time.perf_counter()

    def mark(self) -> float:
        """Milliseconds since the start, remembered in `moments`."""
        self.moments.append((self._read() - self._start) * 1e3)
        return self.moments[-1]


def figures(pixels_ms: float, vision_ms: float, moments: list[float], **more: Any) -> Figures:
    """The figures every system gives.

    Args:
        pixels_ms: image processor.
        vision_ms: vision tower and projector.
        moments: ms from the start (pictures in memory) to the logits of each token.
        more: kv_bytes, kv_allocated_bytes, token_ids and what else is known.
    """
    first, steps = moments[0], len(moments) - 1
    return {
        "pixels_ms": pixels_ms,
        "vision_ms": vision_ms,
        "prefill_ms": first - pixels_ms - vision_ms,
        "first_token_ms": first,
        "decode_ms_per_token": (moments[-1] - first) / steps if steps else None,
    } | more
