"""`python -m tests.fuzz.soak`: threads that ask one scheduler for minutes; `make soak` runs it.

Every ticket must end, whatever its owner does, answers to the same question must stay the same, and the
memory of the process must be flat.
"""

import random
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer

from luvc.engines import VLM
from luvc.engines.serving.limits import Limits
from luvc.engines.serving.scheduler import Scheduler
from luvc.engines.serving.ticket import Busy, Cancelled
from luvc.errors import LuvcError

from .material import Material

LOST = 120.0
"""Seconds after which a ticket counts as lost."""
WARM = 0.25
"""Share of the time after which memory should be flat."""


@dataclass
class Soak:
    """What the threads share.

    Attributes:
        scheduler: asked by all.
        end: when to stop, by time.monotonic.
        seen: how requests ended.
        texts: each plain question's answers.
        memory: MiB of the process, sampled.
    """

    scheduler: Scheduler
    end: float
    seen: Counter[str] = field(default_factory=Counter)
    texts: dict[int, set[str]] = field(default_factory=dict)
    memory: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, number: int) -> None:
        """One thread's requests."""
        chance = random.Random(number)
        while time.monotonic() < self.end:
            kind = chance.choice(("plain", "plain", "plain", "stream", "leave", "wrong", "chat"))
            try:
                getattr(self, kind)(chance, number)
                how = kind
            except Busy:
                how = "busy"
                time.sleep(0.01)
            except Cancelled:
                how = "cancelled"
            except LuvcError:
                how = "refused"
            with self.lock:
                self.seen[how] += 1

    def plain(self, chance: random.Random, number: int) -> None:
        """A question whose answer is known once it was given."""
        grey = chance.randrange(8)
        text = self._waited(self._submit(grey)).text
        with self.lock:
            self.texts.setdefault(grey, set()).add(text)

    def stream(self, chance: random.Random, number: int) -> None:
        """Pieces of an answer add up to it."""
        ticket = self._submit(chance.randrange(8))
        assert "".join(ticket) == self._waited(ticket).text

    def leave(self, chance: random.Random, number: int) -> None:
        """Given up at any moment."""
        ticket = self._submit(chance.randrange(8), max_new_tokens=64)
        time.sleep(chance.random() * 0.1)
        ticket.cancel()
        self._waited(ticket)

    def wrong(self, chance: random.Random, number: int) -> None:
        """What cannot be answered."""
        odd: list[Any] = [
            [{"role": "user", "content": "a" * 5000}],
            [{"role": "user", "content": [{"type": "image", "image": b"no picture"}]}],
            [{"role": "assistant", "content": "a"}],
        ]
        self._waited(self.scheduler.submit(chance.choice(odd)))

    def chat(self, chance: random.Random, number: int) -> None:
        """Two turns of a kept conversation."""
        key = f"{number % 8}"
        self._waited(self._submit(chance.randrange(8), conversation=key))
        again = [{"role": "user", "content": "Why?"}]
        self._waited(self.scheduler.submit(again, conversation=key, max_new_tokens=4))

    def _submit(self, grey: int, **options: Any) -> Any:
        picture = np.full((168, 168, 3), grey * 30, np.uint8)
        parts = [{"type": "image", "image": picture}, {"type": "text", "text": "Which colour?"}]
        options = {"max_new_tokens": 8} | options
        return self.scheduler.submit([{"role": "user", "content": parts}], **options)

    def _waited(self, ticket: Any) -> Any:
        """The answer; a ticket that does not end is this run's failure, not a thread that hangs."""
        until = time.monotonic() + LOST
        while not ticket.done:
            if time.monotonic() > until:
                raise RuntimeError("a ticket was lost")
            time.sleep(0.001)
        return ticket.answer

    def watch(self) -> None:
        """Sample the memory."""
        process = psutil.Process()
        while time.monotonic() < self.end:
            self.memory.append(process.memory_info().rss / 2**20)
            time.sleep(0.5)

    @property
    def growth(self) -> float:
        """MiB between the mean of the tenth after warming up and that of the last tenth."""
        start = int(len(self.memory) * WARM)
        tenth = max(1, len(self.memory) // 10)
        return float(np.mean(self.memory[-tenth:]) - np.mean(self.memory[start : start + tenth]))


def run(bundle: Path, threads: int, seconds: float) -> Soak:
    """Soak a bundle -> what was seen.

    Raises:
        RuntimeError: a ticket was lost.
    """
    limits = Limits(rows=8, waiting=2 * threads, session_mib=8)
    with VLM.load(bundle, threads=1) as vlm, Scheduler(vlm, limits) as scheduler:
        soak = Soak(scheduler, time.monotonic() + seconds)
        with ThreadPoolExecutor(threads + 1) as pool:
            watching = pool.submit(soak.watch)
            for asked in [pool.submit(soak.ask, n) for n in range(threads)]:
                asked.result()
            watching.result()
        assert scheduler.waiting == scheduler.running == 0
    return soak


def main(
    minutes: Annotated[float, typer.Option(help="How long.")] = 10.0,
    threads: Annotated[int, typer.Option(help="That ask at once.")] = 32,
    mib: Annotated[float, typer.Option(help="Most that memory may grow once warm.")] = 64.0,
) -> None:
    """Soak a scheduler; exit code 1 where answers differ or memory grows."""
    with tempfile.TemporaryDirectory() as folder:
        Material.make(Path(folder) / "material")
        soak = run(Path(folder) / "material" / "bundle", threads, minutes * 60)
    differing = [grey for grey, texts in soak.texts.items() if len(texts) > 1]
    typer.echo(f"requests: {dict(soak.seen)}; none lost; memory grew by {soak.growth:.1f} MiB")
    if differing or soak.growth > mib:
        typer.echo(f"answers that differ: {len(differing)}; the limit of growth is {mib:g} MiB")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
