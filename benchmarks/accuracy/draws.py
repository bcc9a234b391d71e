"""Random numbers that belong to a question, whatever batch it is asked in."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Draws:
    """Uniform numbers for the questions of a batch; each call goes on where the last one ended.

    Args:
        seed: of the draw.
        numbers: of the questions in their split, B of them.
    """

    def __init__(self, seed: int, numbers: Sequence[int]):
        self._generators = [np.random.default_rng((seed, number)) for number in numbers]

    def __call__(self, rows: int, columns: int) -> Tensor:
        """float64 [rows, columns] in 0 .. 1; rows is a multiple of B, a question's rows together."""
        each = rows // len(self._generators), columns
        return torch.from_numpy(np.concatenate([g.random(each) for g in self._generators]))
