"""Systems in processes of their own, measured side by side."""

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import LuvcError
from ...exporter.timing.interleaved import interleaved, summaries

Progress = Callable[[str], None]
MEASURED = ("pixels_ms", "vision_ms", "prefill_ms", "first_token_ms", "decode_ms_per_token")


class System:
    """A worker process that holds one system under test (see protocol.py).

    Args:
        name: for people, unique among those compared.
        command: starts the worker.
        environment: of the worker; None is this process's.

    Raises:
        LuvcError: it did not start; says why.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: dict[str, str] | None = None
    ):
        self.name = name
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed with the process
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        self.about: dict[str, Any] = self._answer()["ready"]
        self.about["load_peak_mib"] = self.peak_mib()

    def run(self, batch: int, new_tokens: int) -> dict[str, Any]:
        """One batch -> its figures."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"batch": batch, "new_tokens": new_tokens}) + "\n")
        self._process.stdin.flush()
        return self._answer()["figures"]

    def peak_mib(self) -> float | None:
        """Peak resident memory since the last reset, in MiB; None where the system does not tell."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return None
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    def reset_peak(self) -> None:
        """Let the peak start again at what is resident now (Linux)."""
        try:
            Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")
        except OSError:
            return

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": self._last_words(), "kind": ""}
        if "error" in answer:
            self._process.wait()
            if answer["kind"] == "LuvcError":
                raise LuvcError(answer["error"])
            raise LuvcError(f"{self.name} failed: {answer['error']}\n{self._last_words()}")
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        tail = "".join(self._log.readlines()[-8:]).strip()
        return tail or f"its process ended with exit code {code}"


def measure(
    systems: Sequence[System],
    batches: Sequence[int],
    rounds: int,
    warmup: int,
    new_tokens: int,
    progress: Progress = lambda step: None,
) -> list[dict[str, Any]]:
    """Measure all systems on all batch sizes.

    Args:
        systems: ready.
        batches: batch sizes.
        rounds: measured rounds of each batch size.
        warmup: rounds before them that are not counted.
        new_tokens: tokens made in each run.
        progress: called as a round starts.

    Returns:
        A case for each batch size and system: median, min, max and all samples of every figure.
    """
    cases = []
    for batch in batches:
        for system in systems:
            system.reset_peak()
        runs = [partial(_run, system, batch, new_tokens) for system in systems]
        numbers = _announced(batch, warmup, rounds, progress)
        counted = list(interleaved(runs, numbers))[warmup:]
        cases += [case(s, batch, [found[i] for found in counted]) for i, s in enumerate(systems)]
    return cases


def _run(system: System, batch: int, new_tokens: int, n: int) -> dict[str, Any]:
    """The run of round n, which is like any other."""
    return system.run(batch, new_tokens)


def _announced(batch: int, warmup: int, rounds: int, progress: Progress) -> Iterator[int]:
    """Numbers of the rounds, each said as it begins."""
    for n in range(warmup + rounds):
        what = "warm-up" if n < warmup else f"round {n - warmup + 1} of {rounds}"
        progress(f"batch {batch}, {what}")
        yield n


def case(system: System, batch: int, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """One system at one batch size, summed up."""
    last = samples[-1]
    found: dict[str, Any] = {"system": system.name, "batch": batch} | summaries(samples, MEASURED)
    decode = found["decode_ms_per_token"]
    found["tokens_per_second"] = round(batch * 1e3 / decode["median"], 2) if decode else None
    found["peak_mib"] = system.peak_mib()
    return found | {name: value for name, value in last.items() if name not in MEASURED}
