"""Prompts in few lengths: a new shape costs time, in TensorRT-RTX that of compiling kernels."""

from dataclasses import replace

import numpy as np

from ...bundle.layout import Layout
from ...bundle.manifest import LanguageModel
from ..base import PrefillFeed, StepFeed

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


def smallest_feeds(
    language: LanguageModel, layout: Layout, batch: int, width: int
) -> tuple[PrefillFeed, StepFeed]:
    """The shortest prompts that an engine takes, all zeros, and one token behind them.

    Args:
        language: of the manifest.
        layout: of the prompts.
        batch: B.
        width: last dimension of the visual embeddings.
    """
    V = layout.visual_tokens
    length = V + 2
    rows = np.broadcast_to(np.arange(length), (batch, length))
    axes = language.position_axes
    positions = rows if axes == 1 else np.repeat(rows[..., None], axes, -1)
    prompts = PrefillFeed(
        input_ids=np.zeros((batch, length), np.int64),
        visual_embeds=np.zeros((batch, V, width), np.float32) if layout.images else None,
        visual_index=rows[:, 1 : V + 1] if layout.images else None,
        position_ids=positions,
        last_index=np.full(batch, length - 1),
    )
    token = np.zeros((batch, 1), np.int64)
    return prompts, StepFeed(token, positions[:, :1] + length, np.full(batch, 2), token[:, 0])
