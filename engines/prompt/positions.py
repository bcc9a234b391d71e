"""Position ids of a prompt: plain, or in three axes where visual tokens stand in a grid (M-RoPE).

Letters: S prompt length.
"""

from collections.abc import Sequence

import numpy as np

from ..bundle.layout import Layout
from ..bundle.manifest import LanguageModel


def prompt_positions(
    ids: Sequence[int], language: LanguageModel, layout: Layout, seconds: Sequence[float] = ()
) -> tuple[np.ndarray, int]:
    """Positions of a prompt and the position of what follows it.

    In three axes a text token has the same position in each, and the visual tokens of an image stand at
    (time, row, column) from where the text left off; text goes on behind the longer side of the grid
    (Qwen2-VL, arXiv 2409.12191, section 2.1, with the grid that OIM leaves).

    Args:
        ids: token ids, image tokens in place.
        language: of the manifest.
        layout: of the images.
        seconds: of each video between two steps of the time axis; empty for images.

    Returns:
        int64 [S], or [S, 3]; and the next position.
    """
    if language.position_axes == 1:
        first = language.first_position
        return np.arange(first, first + len(ids)), first + len(ids)
    time, rows, columns = layout.visual_grid or (0, 0, 0)
    grid = np.indices((time, rows, columns)).reshape(3, -1).T
    paces = iter([language.time_scale * s for s in seconds])
    visual = np.equal(ids, language.image_token_id)
    assert len(grid) or not visual.any()
    found = np.empty((len(ids), 3), np.int64)
    place, position = 0, 0
    while place < len(ids):
        if visual[place]:
            pace = (next(paces, 0.0) or 1.0, 1, 1)
            found[place : place + len(grid)] = position + (grid * pace).astype(np.int64)
            place, position = place + len(grid), position + max(rows, columns)
        else:
            found[place] = position
            place, position = place + 1, position + 1
    return found, int(found.max()) + 1


def next_positions(first: np.ndarray, length: int, axes: int) -> np.ndarray:
    """Positions of `length` new text tokens per row: int64 [B] -> [B, T], or [B, T, 3]."""
    positions = first[:, None] + np.arange(length)
    return positions if axes == 1 else np.repeat(positions[..., None], axes, -1)
