"""Scores that ride behind the visual tokens, in the tokens' own precision.

Half precision has too few digits to rank thousands of tokens, so a score is the sum of two numbers.
"""

import torch

COLUMNS = 2


def parted(scores: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """float32 [N, n] -> [N, n, 2] of `dtype`: the score rounded, and what rounding left."""
    high = scores.to(dtype)
    return torch.stack([high, (scores - high.float()).to(dtype)], -1)


def joined(parts: torch.Tensor) -> torch.Tensor:
    """[B, V, 2] -> float32 [B, V]."""
    return parts[..., 0].float() + parts[..., 1].float()
