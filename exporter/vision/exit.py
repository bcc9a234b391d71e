"""A smaller grid of visual tokens at the tower's exit: a constant matrix along each axis that shrinks.

Letters: N' tiles, h x w visual tokens of a tile, r x c after it, D their width.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from ...engines.bundle.schedule import Reduction
from ..planning.grid import Grid


class Exit:
    """Visual tokens of tiles, fewer of them.

    Args:
        reduction: what is made of them.
        side: rows and columns of a tile's visual tokens.
    """

    def __init__(self, reduction: Reduction, side: Grid):
        self.side, self.left = side, Grid(reduction.rows, reduction.columns)
        matrix = {"pool": pool_matrix, "dct": dct_matrix}[reduction.how]
        self.shrink = Shrink(side, self.left, matrix)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[N', h * w, D] -> [N', r * c, D] in raster order."""
        return self.shrink(x)


class Shrink:
    """A matrix along each axis whose length changes.

    Args:
        side: rows and columns before.
        left: and after.
        matrix: makes [shorter, length] for two lengths.
    """

    def __init__(self, side: Grid, left: Grid, matrix: Callable[[int, int], torch.Tensor]):
        self.side = side
        self.rows, self.columns = (
            None
            if after == before
            else matrix(before, after).float().to(torch.get_default_device())
            for before, after in ((side.h, left.h), (side.w, left.w))
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[N', h * w, D] -> [N', r * c, D] in raster order; products in float32."""
        y = x.float().unflatten(1, (self.side.h, self.side.w))
        if self.rows is not None:
            y = torch.matmul(self.rows, y.flatten(2)).unflatten(2, (self.side.w, -1))
        if self.columns is not None:
            y = torch.matmul(self.columns, y)
        return y.flatten(1, 2).to(x.dtype)


def linear_matrix(length: int, shorter: int) -> torch.Tensor:
    """Linear interpolation as torch's without aligned corners, float64 [shorter, length]."""
    found = torch.eye(length, dtype=torch.float64, device="cpu")[None]
    return F.interpolate(found, size=shorter, mode="linear")[0].T


def pool_matrix(length: int, shorter: int) -> torch.Tensor:
    """Adaptive average pooling, float64 [shorter, length].

    Token i averages those from floor(i * length / shorter) to ceil((i + 1) * length / shorter) - 1.
    """
    found = torch.zeros(shorter, length, dtype=torch.float64, device="cpu")
    for i in range(shorter):
        first, end = i * length // shorter, -(-(i + 1) * length // shorter)
        found[i, first:end] = 1 / (end - first)
    return found


def dct_matrix(length: int, shorter: int) -> torch.Tensor:
    """The low frequencies of a DCT-II, back at the smaller size, float64 [shorter, length].

    Both transforms are orthonormal; the factor between them leaves a constant as it is (Fourier-VLM).
    """
    low = _frequencies(length)[:shorter]
    return math.sqrt(shorter / length) * _frequencies(shorter).T @ low


def _frequencies(length: int) -> torch.Tensor:
    """Orthonormal DCT-II, float64 [length, length], a frequency a row."""
    n = torch.arange(length, dtype=torch.float64, device="cpu")
    waves = torch.cos(math.pi / length * n[:, None] * (n + 0.5)) * math.sqrt(2 / length)
    waves[0] /= math.sqrt(2)
    return waves
