"""Prompts in few lengths: a new shape costs time, in TensorRT-RTX that of compiling kernels."""

from dataclasses import replace

import numpy as np

from ...bundle.layout import Layout
from ...bundle.manifest import Manifest
from ...bundle.tensors import visual_lens
from ..base import PrefillFeed, StepFeed

MULTIPLE = 64  # tokens of a prompt
TURN = 16  # tokens of a step that has more than one


def pad_prompts(feed: PrefillFeed, shortest: int, longest: int) -> PrefillFeed:
    """Right-pad prompts to a multiple of MULTIPLE tokens, or to `longest` where that is less.

    Args:
        feed: prompts of S tokens; those longer than `longest` stay as they are.
        shortest: fewest tokens that the engine takes.
        longest: most.
    """
    S = feed.input_ids.shape[1]
    length = max(min(_rounded(max(S, shortest), MULTIPLE), longest), S)
    ids, positions = (_padded(a, length) for a in (feed.input_ids, feed.position_ids))
    return replace(feed, input_ids=ids, position_ids=positions)


def pad_turns(feed: StepFeed, capacity: int) -> StepFeed:
    """Right-pad new tokens to a multiple of TURN, as far as all rows have room; single ones stay.

    Args:
        feed: T new tokens. The slots behind a row's own are written, and not counted.
        capacity: text tokens of a row.
    """
    T = feed.input_ids.shape[1]
    if T == 1:
        return feed
    length = max(min(_rounded(T, TURN), capacity - int(feed.text_len.max())), T)
    ids, positions = (_padded(a, length) for a in (feed.input_ids, feed.position_ids))
    return replace(feed, input_ids=ids, position_ids=positions)


def _rounded(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _padded(array: np.ndarray, length: int) -> np.ndarray:
    """[B, S, ...] -> [B, length, ...], zeros behind."""
    more = length - array.shape[1]
    return np.pad(array, [(0, 0), (0, more), *[(0, 0)] * (array.ndim - 2)])


def smallest_feeds(
    manifest: Manifest, layout: Layout, batch: int, width: int
) -> tuple[PrefillFeed, StepFeed]:
    """The shortest prompts that an engine takes, all zeros, and one token behind them.

    Args:
        manifest: of the bundle.
        layout: of the prompts.
        batch: B.
        width: last dimension of the visual embeddings.
    """
    V = layout.visual_tokens
    length = V + 2
    rows = np.broadcast_to(np.arange(length), (batch, length))
    axes = manifest.language.position_axes
    positions = rows if axes == 1 else np.repeat(rows[..., None], axes, -1)
    prompts = PrefillFeed(
        input_ids=np.zeros((batch, length), np.int64),
        visual_embeds=np.zeros((batch, V, width), np.float32) if layout.images else None,
        visual_index=rows[:, 1 : V + 1] if layout.images else None,
        position_ids=positions,
        last_index=np.full(batch, length - 1),
    )
    token = np.zeros((batch, 1), np.int64)
    after, text = positions[:, :1] + length, np.full(batch, 2)
    visual = visual_lens(manifest, [layout] * batch)
    return prompts, StepFeed(token, after, text, token[:, 0], visual)
