"""Muon for many small matrices: equal shapes are orthogonalised together.

torch.optim.Muon takes the matrices one by one, some fifteen kernels each and iteration; for a hundred
matrices of 192 x 192 a step would then wait for launches longer than for the network.
Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5
_MOMENTUM = 0.95


def orthogonalise(matrices: Tensor) -> Tensor:
    """Singular values of [n, r, c] brought near 1 by five Newton-Schulz steps.

    In bfloat16 on a GPU; a CPU may have no such products, and takes twenty times as long to imitate them.
    """
    a, b, c = _COEFFICIENTS
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class BatchedMuon(torch.optim.Optimizer):
    """The update of torch.optim.Muon with adjust_lr_fn="match_rms_adamw", a batch for each shape.

    Args:
        parameters: matrices.
        lr: learning rate; the update is scaled to the size of AdamW's.
        weight_decay: decoupled.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, weight_decay: float):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step on the gradients that are there."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[parameter.shape].append(parameter)
            for shape, parameters in shapes.items():
                self._step_shape(parameters, shape, group["lr"], group["weight_decay"])

    def _step_shape(self, parameters: list[Tensor], shape: torch.Size, lr: float, decay: float):
        gradients = torch.stack([p.grad for p in parameters if p.grad is not None])
        state = self.state[parameters[0]]  # of all matrices of the shape
        momentum = state.get("momentum")
        if momentum is None or momentum.shape != gradients.shape:  # others joined: begin anew
            momentum = state["momentum"] = torch.zeros_like(gradients)
        momentum.lerp_(gradients, 1 - _MOMENTUM)
        updates = orthogonalise(gradients.lerp(momentum, _MOMENTUM)).to(gradients.dtype)
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - lr * decay).add_(update, alpha=-lr * 0.2 * max(shape) ** 0.5)
