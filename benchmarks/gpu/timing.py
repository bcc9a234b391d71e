"""Time on a device: CUDA events, CUDA graphs, systems side by side. On a CPU the wall clock."""

import time
from collections.abc import Callable
from typing import Any

import torch

from luvc.errors import brief
from luvc.exporter.timing.interleaved import interleaved, summaries

Work = Callable[[], Any]


class Clock:
    """Milliseconds of work on a device."""

    def __init__(self, device: torch.device):
        self.device, self._cuda = device, device.type == "cuda"

    def __call__(self, work: Work) -> float:
        """Run work once -> ms, from an idle device to the end of what was enqueued."""
        self.wait()
        if not self._cuda:
            start = time.perf_counter()
            work()
            return (time.perf_counter() - start) * 1e3
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def wait(self) -> None:
        """Until the device is idle."""
        if self._cuda:
            torch.cuda.synchronize(self.device)


class Captured:
    """Work that is recorded as a CUDA graph, and replayed by calling this.

    What cannot be recorded runs as it is; `refused` then says why. Tensors that the work reads must stay
    where they are.

    Args:
        work: run a few times before, so that everything lazy is done.
        device: on a CPU nothing is recorded.
        pool: memory shared with other graphs, of which one runs at a time.
        warmup: runs before the recording.
    """

    def __init__(self, work: Work, device: torch.device, pool: Any = None, warmup: int = 2):
        self.work = work
        self.refused = None
        self._graph = None
        if device.type != "cuda":
            self.refused = "CUDA graphs need a GPU"
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(warmup):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=pool):
                self.outputs = work()
        except RuntimeError as error:
            self.refused = brief(error)
            torch.cuda.synchronize()
        else:
            self._graph = graph

    def __call__(self) -> None:
        """Run once."""
        if self._graph is None:
            self.work()
        else:
            self._graph.replay()

    @property
    def form(self) -> str:
        """How it runs, for the report."""
        return "CUDA graph" if self._graph is not None else "eager"


def side_by_side(
    measured: dict[Any, Callable[[int], dict[str, float]]], rounds: int
) -> dict[Any, dict[str, Any]]:
    """Measure systems in interleaved rounds.

    Args:
        measured: of each system, (number of the round) -> ms of each part.
        rounds: how many.

    Returns:
        A summary of each part of each system.
    """
    found = list(interleaved(list(measured.values()), range(rounds)))
    samples = zip(*found, strict=True)
    return {name: summaries(s, s[0]) for name, s in zip(measured, samples, strict=True)}


def rounds_for(seconds: float, ms: float, least: int = 3, most: int = 15) -> int:
    """Rounds of `ms` that fit into `seconds`, within limits."""
    return max(least, min(most, int(seconds * 1e3 / max(ms, 1e-3))))
