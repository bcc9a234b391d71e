"""Which of PyTorch's fused attention kernels run: each is tried alone, the fastest is taken, never math."""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from luvc.errors import brief

from .timing import Clock, Work

FUSED = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


@dataclass
class Choice:
    """The kernel that some work prefers.

    Attributes:
        name: in FUSED, or None where PyTorch chooses (on a CPU).
        ms: of the work with each that runs it.
        refused: why others do not, first line.
    """

    name: str | None = None
    ms: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def context(self) -> Any:
        """This kernel comes first inside; calls that it does not take go to another fused one."""
        if self.name is None:
            return nullcontext()
        order = sorted(FUSED, key=lambda name: name != self.name)
        return sdpa_kernel([FUSED[name] for name in order], set_priority=True)

    def around(self, work: Work) -> Work:
        """Work that runs in this context whenever it is called."""

        def run() -> Any:
            with self.context():
                return work()

        return run


def any_fused(device: torch.device) -> Any:
    """Where each call may take any fused kernel; PyTorch chooses among them, on a CPU among all."""
    return sdpa_kernel(list(FUSED.values())) if device.type == "cuda" else nullcontext()


def choose(work: Work, clock: Clock, names: Iterable[str] = FUSED) -> Choice:
    """Run work with each kernel alone, twice, and take the fastest at its second run.

    Raises:
        RuntimeError: none runs it; with what each said.
    """
    choice = Choice()
    for name in names:
        try:
            with sdpa_kernel(FUSED[name]):
                clock(work)
                choice.ms[name] = round(clock(work), 3)
        except RuntimeError as error:
            clock.wait()
            choice.refused[name] = brief(error)
    if not choice.ms:
        raise RuntimeError(f"no fused attention kernel runs this: {choice.refused}")
    choice.name = min(choice.ms, key=lambda name: choice.ms[name])
    return choice
