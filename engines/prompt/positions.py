"""Position ids: plain, or in three axes where visual tokens stand in a grid (M-RoPE); and how far they go.

Letters: B batch, S prompt length, T new tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import LuvcError
from ..bundle.layout import Layout
from ..bundle.manifest import LanguageModel, Manifest


@dataclass(frozen=True)
class Reached:
    """How far conversations have come in their caches.

    Attributes:
        text_len: int64 [B], text tokens in the caches.
        position: int64 [B], next position in the unpruned sequence.
    """

    text_len: np.ndarray
    position: np.ndarray

    @classmethod
    def nothing(cls, batch: int) -> "Reached":
        """Of B rows that have not begun."""
        return cls(np.zeros(batch, np.int64), np.zeros(batch, np.int64))

    def room(self, manifest: Manifest, row: int) -> int:
        """Text tokens that a row can still take: slots of its caches, positions of the model."""
        slots = manifest.text_capacity - self.text_len[row]
        return int(min(slots, manifest.language.end_position - self.position[row]))

    def take(self, rows: Sequence[int]) -> "Reached":
        """Copies of these rows, in this order."""
        chosen = list(rows)
        return Reached(self.text_len[chosen], self.position[chosen])

    def put(self, row: int, one: "Reached") -> None:
        """Set a row to the one row of another."""
        self.text_len[row], self.position[row] = one.text_len[0], one.position[0]

    def join(self, others: "Reached") -> "Reached":
        """These rows, and others behind them."""
        text_len = np.concatenate([self.text_len, others.text_len])
        return Reached(text_len, np.concatenate([self.position, others.position]))


def limit_passed(manifest: Manifest, text_tokens: int) -> str:
    """Which of `Reached.room`'s two limits a conversation goes beyond, and what helps.

    Args:
        manifest: of the bundle.
        text_tokens: of the conversation, with those that do not fit any more.
    """
    if text_tokens > manifest.text_capacity:
        return (
            f"the bundle holds {manifest.text_capacity} text tokens for prompts and answers of a "
            "conversation: export with a larger --text-capacity"
        )
    return (
        f"the model was made for the positions below {manifest.language.end_position}: give less text or a "
        "shorter video, or export for smaller or fewer images"
    )


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

    Raises:
        LuvcError: a position lies beyond those that the model was made for.
    """
    if language.position_axes == 1:
        first = language.first_position
        _check(first + len(ids) - 1, language)
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
            _check(position + (time - 1) * pace[0], language, pace[0])  # while any number fits
            found[place : place + len(grid)] = position + (grid * pace).astype(np.int64)
            place, position = place + len(grid), position + max(rows, columns)
        else:
            found[place] = position
            place, position = place + 1, position + 1
    last = int(found.max())
    _check(last, language)
    return found, last + 1


def _check(last: float, language: LanguageModel, pace: float = 1.0) -> None:
    """Refuse a prompt with a position that the model was not made for.

    Args:
        last: the highest position, or that of a video's last step.
        language: of the manifest.
        pace: positions between two steps of that video.
    """
    if last < language.end_position:
        return
    mend = "shorten it, or export for smaller or fewer images"
    if pace > 1:
        mend = (
            f"its video moves {pace:.5g} positions on from step to step, {language.time_scale:g} a second: "
            "give the fps that its frames have, or cut a part out"
        )
    raise LuvcError(
        f"the prompt has the position {last:.15g}, the model was made for those below "
        f"{language.end_position}: {mend}"
    )


def next_positions(first: np.ndarray, length: int, axes: int) -> np.ndarray:
    """Positions of `length` new text tokens per row: int64 [B] -> [B, T], or [B, T, 3]."""
    positions = first[:, None] + np.arange(length)
    return positions if axes == 1 else np.repeat(positions[..., None], axes, -1)
