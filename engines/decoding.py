"""A batch of conversations and its caches, and the loop that answers them.

Letters: B batch, S prompt length, T new tokens, V visual tokens, L language layers.
"""

import threading
from collections.abc import Generator, Sequence
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np

from ..errors import LuvcError
from .backends.base import PrefillFeed, PrefillResult, Runner, StepFeed
from .bundle.layout import Layout
from .bundle.manifest import LanguageModel, Manifest
from .bundle.tensors import visual_in, visual_lens
from .prompt.positions import Reached, limit_passed, next_positions, prompt_positions
from .reply import Reply


class Rows:
    """B conversations with their key/value caches.

    Args:
        runner: the backend.
        manifest: of the bundle.
        layout: of all rows, or of each; those share a step graph.
        batch: B.
        caches: of B rows; default new ones, when they are first needed.
        reached: what the caches hold already; default nothing.
    """

    def __init__(
        self,
        runner: Runner,
        manifest: Manifest,
        layout: Layout | Sequence[Layout],
        batch: int,
        caches: Any = None,
        reached: Reached | None = None,
    ):
        self.runner = runner
        self.manifest = manifest
        self.layouts = (layout,) * batch if isinstance(layout, Layout) else tuple(layout)
        self.caches = caches
        self.reached = reached or Reached.nothing(batch)
        self._visual = np.array(
            [visual_in(x, manifest.language.layers) for x in self.layouts]
        )  # [B, L]

    @cached_property
    def _visual_len(self) -> np.ndarray | None:
        return visual_lens(self.manifest, self.layouts)

    @property
    def layout(self) -> Layout:
        """The layout of the first row, and of all where the rows have one."""
        return self.layouts[0]

    @property
    def text_len(self) -> np.ndarray:
        """int64 [B], text tokens in the caches."""
        return self.reached.text_len

    def take(self, rows: Sequence[int], caches: Any) -> "Rows":
        """These rows alone, in this order.

        Args:
            rows: indices of rows.
            caches: where their keys and values lie already, in the same order.
        """
        reached, layouts = self.reached.take(rows), [self.layouts[row] for row in rows]
        return Rows(self.runner, self.manifest, layouts, len(rows), caches, reached)

    def join(self, others: "Rows", caches: Any) -> "Rows":
        """These rows, and behind them others.

        Args:
            others: what follows.
            caches: where the keys and values of them all lie already, in the same order.
        """
        reached, layouts = self.reached.join(others.reached), (*self.layouts, *others.layouts)
        return Rows(self.runner, self.manifest, layouts, len(layouts), caches, reached)

    def room(self, row: int) -> int:
        """Text tokens the row can still take."""
        return self.reached.room(self.manifest, row)

    def length(self, row: int) -> int:
        """Tokens of the row's unpruned sequence that have been run."""
        return int(self.text_len[row]) + self.layouts[row].visual_tokens

    def slots(self, more: int) -> list[int]:
        """Slots of each language layer's caches that `more` tokens of every row need."""
        used = self.text_len[:, None] + self._visual
        return (used.max(0) + more).tolist()

    def prefill(
        self,
        prompts: Sequence[Sequence[int]],
        visual_embeds: np.ndarray | None,
        seconds: Sequence[Sequence[float]] | None = None,
        **options: Any,
    ) -> PrefillResult:
        """Run whole prompts.

        Args:
            prompts: token ids of each row, image tokens in place.
            visual_embeds: [B, V, D]; None for prompts without images.
            seconds: per step of the time axis, of each video of each row.
            options: of the runner's prefill.
        """
        layout = self.layout
        feed, after = prompt_feed(self.manifest.language, layout, prompts, visual_embeds, seconds)
        self._reserve(feed.input_ids.shape[1] - layout.visual_tokens)
        result = self.runner.prefill(layout, feed, self.caches, **options)
        self.reached = Reached(feed.last_index + 1 - layout.visual_tokens, after)
        return result

    def run_rest(self, prompt: Sequence[int], seconds: Sequence[float] = ()) -> np.ndarray:
        """Run what of a prompt is not in the caches of one row yet -> logits float32 [1, vocabulary].

        All its images are; positions are the whole prompt's.

        Args:
            prompt: its token ids, from the first one on.
            seconds: see `prompt_positions`.
        """
        reached = self.length(0)
        placed, after = prompt_positions(prompt, self.manifest.language, self.layout, seconds)
        self.reached = Reached(self.text_len, placed[reached : reached + 1].reshape(1, -1)[:, 0])
        logits = self.step([prompt[reached:]])
        self.reached = Reached(self.text_len, np.array([after]))
        return logits

    def step(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        """Run new tokens -> logits float32 [B, vocabulary] of each row's last one.

        A row without new tokens is carried along: its slot is written and not counted.

        Raises:
            LuvcError: a row has no room left.
        """
        counts = np.array([len(t) for t in tokens])
        longest = int(counts.max())
        for row in range(len(tokens)):
            full = longest > self.manifest.text_capacity - self.text_len[row]
            if counts[row] and (full or counts[row] > self.room(row)):
                used, position = self.text_len[row], self.reached.position[row]
                raise LuvcError(
                    f"{longest} more text tokens do not fit behind {used}, at position {position}: "
                    f"{limit_passed(self.manifest, used + longest)}, or ask afresh"
                )
        ids = right_pad([t or [0] for t in tokens])
        write = np.minimum(self.text_len, self.manifest.text_capacity - longest)
        feed = StepFeed(
            input_ids=ids,
            position_ids=next_positions(
                self.reached.position, longest, self.manifest.language.position_axes
            ),
            text_len=np.where(counts > 0, self.text_len, write),
            last_index=np.maximum(counts, 1) - 1,
            visual_len=self._visual_len,
        )
        self._reserve(longest)
        logits = self.runner.step(self.layout, feed, self.caches)
        self.reached = Reached(self.text_len + counts, self.reached.position + counts)
        return logits

    def _reserve(self, more: int) -> None:
        """Make room in the caches for `more` tokens of every row."""
        slots = self.slots(more)
        if self.caches is None:
            self.caches = self.runner.new_caches(self.layout, len(self.layouts), slots)
        self.caches = self.runner.grown(self.layout, self.caches, slots)


def prompt_feed(
    language: LanguageModel,
    layout: Layout,
    prompts: Sequence[Sequence[int]],
    visual_embeds: np.ndarray | None,
    seconds: Sequence[Sequence[float]] | None = None,
) -> tuple[PrefillFeed, np.ndarray]:
    """What a runner's prefill takes, and the next position of each row, int64 [B].

    Args:
        language: of the manifest.
        layout: of all prompts.
        prompts: token ids of each row, image tokens in place.
        visual_embeds: [B, V, D]; None for prompts without images.
        seconds: per step of the time axis, of each video of each row.
    """
    placed = [
        prompt_positions(p, language, layout, s)
        for p, s in zip(prompts, seconds or [()] * len(prompts), strict=True)
    ]
    visual: np.ndarray | None = None
    ids = right_pad(prompts)
    if layout.images:
        visual = np.stack([np.flatnonzero(np.equal(p, language.image_token_id)) for p in prompts])
        # their embeddings are not looked up: the image's id may lie behind the vocabulary
        ids[np.arange(len(prompts))[:, None], visual] = 0
    feed = PrefillFeed(
        input_ids=ids,
        visual_embeds=visual_embeds,
        visual_index=visual,
        position_ids=right_pad([positions for positions, _ in placed]),
        last_index=np.array([len(p) for p in prompts]) - 1,
    )
    return feed, np.array([after for _, after in placed])


def right_pad(rows: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
    """Rows [S, ...] of unequal length -> int64 [B, longest, ...], zeros behind."""
    out = np.zeros((len(rows), max(map(len, rows)), *np.shape(rows[0])[1:]), np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def decode(
    rows: Rows,
    replies: Sequence[Reply],
    logits: np.ndarray,
    cancelled: threading.Event | None = None,
) -> Generator[list[str], None, float]:
    """Decode until every reply has ended; yields text pieces, returns ms per step.

    A step counts with its sampling and detokenising, without the caller's own work.

    Args:
        rows: whose prompts have been run.
        replies: of each row.
        logits: float32 [B, vocabulary] of the prompts' last tokens.
        cancelled: ends them before the next step.
    """
    steps, spent = 0, 0.0
    while True:
        start = perf_counter()
        pieces = [
            "" if reply.ended else reply.accept(row)
            for reply, row in zip(replies, logits, strict=True)
        ]
        spent += perf_counter() - start if steps else 0.0
        yield pieces
        last = [_cut(rows, i, reply, cancelled) for i, reply in enumerate(replies)]
        if any(last):
            yield last
        if all(reply.ended for reply in replies):
            return spent / steps * 1e3 if steps else 0.0
        start = perf_counter()
        logits = rows.step([[] if reply.ended else reply.ids[-1:] for reply in replies])
        spent, steps = spent + perf_counter() - start, steps + 1


def _cut(rows: Rows, row: int, reply: Reply, cancelled: threading.Event | None) -> str:
    """End a reply that cannot or must not go on -> its last text."""
    if not reply.ended and cancelled is not None and cancelled.is_set():
        return reply.finish("cancelled")
    if not reply.ended and rows.room(row) < 1:
        return reply.finish("capacity")
    return ""
