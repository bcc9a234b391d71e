"""Optimisers, the learning rate over a run, and the running average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .muon import BatchedMuon

_COOLING = 0.35
"""Last part of a run, in which the learning rate falls to zero."""


def optimizers(
    learner: nn.Module, rate: float, decay: float, muon: bool
) -> list[torch.optim.Optimizer]:
    """Build AdamW for everything, or Muon for the layers' matrices and AdamW for the rest.

    Args:
        learner: the module to train.
        rate: highest learning rate; Muon's update is scaled to the size of AdamW's.
        decay: weight decay of matrices.
        muon: whether to use Muon.
    """
    matrices = []
    inner = []
    plain = []
    for name, parameter in learner.named_parameters():
        if parameter.ndim == 2 and (".layer" in name or "projector" in name):
            inner.append(parameter)
        elif parameter.ndim > 1 and "embed" not in name:
            matrices.append(parameter)
        else:
            plain.append(parameter)
    if not muon:
        matrices, inner = matrices + inner, []
    groups = [
        {"params": matrices, "weight_decay": decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    fused = plain[0].is_cuda
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=fused)
    ]
    if inner:
        made.append(BatchedMuon(inner, lr=rate, weight_decay=decay))
    return made


def rate_factor(step: int, warmup: int, progress: float) -> float:
    """Learning rate as a part of the highest: linear warm-up, level, linear fall to zero.

    The level part makes the length of a run a late decision: a run that is stopped and resumed
    with another length has lost nothing.

    Args:
        step: steps done.
        warmup: steps until the highest rate.
        progress: part of the run that is over, 0 .. 1.
    """
    return max(0.0, min(1.0, (step + 1) / max(warmup, 1), (1 - progress) / _COOLING))


class Average:
    """Exponential running average of a module's parameters, float32."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.parameters = list(module.parameters())
        self.values: list[Tensor] = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the parameters; it follows fast during the first steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(self.values, [p.detach() for p in self.parameters], step)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the parameters and the average; a second call puts them back."""
        for parameter, value in zip(self.parameters, self.values, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)
