"""Weights of eight-bit floating point, with scales of blocks.

Letters: N outputs of a product, K its inputs, [n, k] blocks that share a scale.
"""

import torch

from .coded import AT_ONCE
from .parts import Parts

E4M3 = "F8_E4M3"
FLOATS = ("F32", "F16", "BF16", "F8_E8M0")
"""Types of scales; the last is powers of two."""


def weight_shape(parts: Parts) -> tuple[int, int]:
    """[N, K] of a weight of eight-bit floating point.

    Raises:
        LuvcError: it is missing, or no such matrix.
    """
    n, k = parts.entry("weight", E4M3, ndim=2).shape
    return n, k


def scaled(parts: Parts, part: str, block: tuple[int, int]) -> torch.Tensor:
    """float32 [N, K]: weights times scales, with what their names call an inverse, too.

    Args:
        parts: of the weight.
        part: the scales, [n, k]; a single one may have fewer dimensions.
        block: outputs and inputs that share one; the last blocks may be smaller.

    Raises:
        LuvcError: a part is missing or does not fit.
    """
    n, k = weight_shape(parts)
    grid = -(-n // block[0]), -(-k // block[1])
    entry = parts.entry(part, *FLOATS)
    scales = entry.read().float()
    if grid == (1, 1) and entry.shape in ((), (1,)):
        scales = scales.view(1, 1)
    elif grid[1] == 1 and entry.shape == grid[:1]:
        scales = scales[:, None]
    elif entry.shape != grid:
        raise parts.wrong(part, f"should be {list(grid)}, of blocks of {block[0]} x {block[1]}")
    weight = parts.read("weight")
    found = torch.empty((n, k), dtype=torch.float32)
    rows, columns = torch.arange(n) // block[0], torch.arange(k) // block[1]
    step = max(1, AT_ONCE // max(1, k))
    for start in range(0, n, step):
        at_once = slice(start, start + step)
        found[at_once] = weight[at_once].float() * scales[rows[at_once]][:, columns]
    return found
