"""Prompts in few lengths: a new shape costs time, in TensorRT-RTX that of compiling kernels."""

from dataclasses import replace

import numpy as np

from ..base import PrefillFeed

MULTIPLE = 64  # tokens


def pad_prompts(feed: PrefillFeed, longest: int) -> PrefillFeed:
    """Right-pad prompts to a multiple of MULTIPLE tokens, or to `longest` where that is less.

    Args:
        feed: prompts of S tokens; those longer than `longest` stay as they are.
        longest: most tokens that the engine takes.
    """
    S = feed.input_ids.shape[1]
    more = max(min(-(-S // MULTIPLE) * MULTIPLE, longest) - S, 0)

    def padded(array: np.ndarray) -> np.ndarray:
        """[B, S, ...] -> [B, S + more, ...], zeros behind."""
        return np.pad(array, [(0, 0), (0, more), *[(0, 0)] * (array.ndim - 2)])

    ids, positions = padded(feed.input_ids), padded(feed.position_ids)
    return replace(feed, input_ids=ids, position_ids=positions)
