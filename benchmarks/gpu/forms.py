"""Other ways to the same energies, for comparison: torch.fft, and products with the truncated basis.

Letters: B batch, V visual tokens, D hidden size, S sequence, K bins kept (cosines and sines).
"""

from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
import torch

Form = Callable[[torch.Tensor], torch.Tensor]  # hidden [B, S, D] -> energies [B, V]
FIRST = 4  # text tokens before the visual ones
FP32_FLOPS = {"9.0": 67e12}  # plain float32 by datasheet, by compute capability


def fft(V: int, cutoff: int, dtype: torch.dtype = torch.float32) -> Form:
    """torch.fft."""

    def run(x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft(x[:, FIRST : FIRST + V].to(dtype), dim=1)
        spectrum[:, cutoff + 1 :] = 0
        return torch.fft.irfft(spectrum, n=V, dim=1).square().sum(-1)

    return run


def basis(table: torch.Tensor, tf32: bool = False) -> Form:
    """Products with the basis [V, K] and back, in float32 or with its operands in TF32."""

    def run(x: torch.Tensor) -> torch.Tensor:
        with allow_tf32(tf32):
            return (table @ _coefficients(table, x)).square().sum(-1)

    return run


def gram(table: torch.Tensor, tf32: bool = False) -> Form:
    """The same by the Gram matrix of the coefficients [B, K, K]: the filtered signal is not stored."""

    def run(x: torch.Tensor) -> torch.Tensor:
        with allow_tf32(tf32):
            z = _coefficients(table, x)
            return (table @ (z @ z.mT) * table).sum(-1)

    return run


def _coefficients(table: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Of the visual tokens of x [B, S, D] -> [B, K, D]."""
    return table.T @ x[:, FIRST : FIRST + len(table)].float()


def basis_table(V: int, cutoff: int) -> torch.Tensor:
    """Orthonormal cosines and sines of the bins up to the cutoff, float64 [V, K]."""
    n, f = np.arange(V)[:, None], np.arange(1, cutoff + 1)[None]
    angle = 2 * np.pi * (n * f % V) / V
    alone = f * 2 == V  # the bin that is its own conjugate
    scale = np.where(alone, 1.0, 2.0) ** 0.5
    columns = [np.ones((V, 1)), scale * np.cos(angle), (scale * np.sin(angle))[:, ~alone[0]]]
    return torch.from_numpy(np.concatenate(columns, 1) / V**0.5)


@contextmanager
def allow_tf32(allowed: bool):
    """Matrix products of float32 with or without TF32 operands."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def fft_flops(B: int, V: int, D: int) -> float:
    """Of a transform of D channels along V and back, two real channels in one complex transform."""
    return 5.0 * B * V * D * np.log2(V)
