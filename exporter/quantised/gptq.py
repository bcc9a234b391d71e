"""Codes whose errors the inputs of a product hide: GPTQ (Frantar et al., arXiv 2210.17323), in PyTorch.

Rounding to nearest keeps each weight near; this keeps the product's output near on inputs that were seen.
Inputs are rounded in their order, so that codes lie as any other's. Letters: N outputs of a product, K its
inputs, G groups of inputs that share a scale (int8: one), X inputs [K, tokens].
"""

from collections.abc import Iterator

import torch

from ...errors import LuvcError
from .rounding import Rounding

DAMPENING = 0.01
"""Of the mean diagonal, added to it (section 3.3, step 3); ten times more where that is too little."""
BLOCK = 128
"""Inputs whose errors reach those behind them at once (section 3.3, step 2)."""
SHRUNKEN = tuple(1 - 0.02 * step for step in range(25))
"""Of a group's largest weight: what its scale may be made for; what lies beyond gets the last code."""


def calibrated(
    weight: torch.Tensor, hessian: torch.Tensor, rounding: Rounding, name: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales that keep W X near.

    Args:
        weight: W, [N, K].
        hessian: X X^T, [K, K], to any factor; all is computed in its dtype. An input that was never
            anything but 0 is rounded to nearest.
        rounding: codes, groups, and dtype of the scales.
        name: of the weight, for people.

    Returns:
        int8 [N, K], and [N, G] of the rounding's dtype.

    Raises:
        LuvcError: the Hessian is no number.
    """
    factor = inverse_factor(hessian, name)
    importance = hessian.diagonal().clone()
    left = (
        weight.detach().to(hessian.dtype).T.contiguous()
    )  # [K, N]: an input's weights lie together
    K, N = left.shape
    size = rounding.how.group_size or K
    codes = torch.empty(K, N, dtype=torch.int8)
    scales = torch.empty(N, K // size, dtype=rounding.dtype)
    step = left.new_empty(N)
    for start in range(0, K, BLOCK):
        block = slice(start, min(start + BLOCK, K))
        errors = left.new_empty(block.stop - start, N)
        for i in range(start, block.stop):
            if i % size == 0:
                group = slice(i, i + size)
                found = searched(left[group].T, importance[group], rounding)
                scales[:, i // size], step = found, found.to(left.dtype)
            code = (left[i] / step).round_().clamp_(-rounding.largest - 1, rounding.largest)
            codes[i] = code.to(torch.int8)
            error = (left[i] - code * step) / factor[i, i]
            left[i + 1 : block.stop].addr_(factor[i, i + 1 : block.stop], error, alpha=-1)
            errors[i - start] = error
        left[block.stop :].addmm_(factor[block, block.stop :].T, errors, alpha=-1)
    return codes.T.contiguous(), scales


def inverse_factor(hessian: torch.Tensor, name: str) -> torch.Tensor:
    """The upper Cholesky factor of the dampened Hessian's inverse, [K, K] (section 3.3, step 3).

    Raises:
        LuvcError: the Hessian is no number.
    """
    if not hessian.diagonal().isfinite().all():
        raise LuvcError(
            f"--calibrate: the inputs of {name} are NaN or infinite on these questions, so the model would "
            "answer nothing either: is the checkpoint damaged? Without --calibrate nothing is run"
        )
    mean = hessian.diagonal().mean()
    never = hessian.diagonal() == 0
    damp = DAMPENING * (mean if mean > 0 else torch.ones_like(mean))
    for _ in range(4):
        dampened = hessian.clone()
        dampened.diagonal()[never] = 1
        dampened.diagonal().add_(damp)
        lower, failed = torch.linalg.cholesky_ex(dampened)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not failed:
            return upper
        damp = damp * 10
    raise LuvcError(
        f"--calibrate: the inputs of {name} are too far apart to be calibrated on: give more questions, or "
        "leave --calibrate out"
    )


def searched(group: torch.Tensor, importance: torch.Tensor, rounding: Rounding) -> torch.Tensor:
    """The scale of each output that loses least, of some that do not reach its largest weights: [N].

    Args:
        group: weights [N, K / G] as they are when the group begins.
        importance: of the inputs, [K / G]: what the square of an error counts.
        rounding: codes, and dtype of the scales.
    """
    best = least = None
    for scale in _candidates(group, rounding):
        steps = scale.to(group.dtype)[:, None]
        codes = (group / steps).round_().clamp_(-rounding.largest - 1, rounding.largest)
        lost = (codes.mul_(steps).sub_(group)).square_() @ importance
        if best is None or least is None:
            best, least = scale, lost
        else:
            better = lost < least
            best, least = torch.where(better, scale, best), torch.where(better, lost, least)
    assert best is not None
    return best


def _candidates(group: torch.Tensor, rounding: Rounding) -> Iterator[torch.Tensor]:
    """Scales [N], the largest first: at that every weight has a code."""
    whole = rounding.scale_of(group)
    for part in SHRUNKEN:
        scale = (whole.to(group.dtype) * part).to(rounding.dtype)
        yield torch.where(scale == 0, whole, scale)
