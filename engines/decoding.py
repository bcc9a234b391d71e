"""A batch of conversations and its caches, and what becomes of one row's logits.

Letters: B batch, S prompt length, T new tokens, V visual tokens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import LuvcError
from .backends.base import PrefillFeed, PrefillResult, Runner, StepFeed
from .bundle.manifest import Layout, Manifest
from .positions import next_positions, prompt_positions
from .sampling import Sampler, Sampling


class Rows:
    """B conversations of one layout with their key/value caches.

    Args:
        runner: the backend.
        manifest: of the bundle.
        layout: shared by all rows.
        batch: B.
        caches: of B rows; default new ones.
    """

    PER_ROW = ("text_len", "position")  # arrays [B, ...] that belong to the caches' rows

    def __init__(
        self, runner: Runner, manifest: Manifest, layout: Layout, batch: int, caches: Any = None
    ):
        self.runner, self.manifest, self.layout = runner, manifest, layout
        self.caches = runner.new_caches(layout, batch) if caches is None else caches
        self.text_len = np.zeros(batch, np.int64)  # text tokens in the caches
        self.position = np.zeros(batch, np.int64)  # next position in the unpruned sequence

    def room(self, row: int) -> int:
        """Text tokens the row can still take."""
        return int(self.manifest.text_capacity - self.text_len[row])

    def length(self, row: int) -> int:
        """Tokens of the row's unpruned sequence that have been run."""
        return int(self.text_len[row]) + self.layout.visual_tokens

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
        lengths = np.array([len(p) for p in prompts])
        lm, layout = self.manifest.language, self.layout
        placed = [
            prompt_positions(p, lm, layout, s)
            for p, s in zip(prompts, seconds or [()] * len(prompts), strict=True)
        ]
        visual: np.ndarray | None = None
        if layout.images:
            visual = np.stack([np.flatnonzero(np.equal(p, lm.image_token_id)) for p in prompts])
        feed = PrefillFeed(
            input_ids=right_pad(prompts),
            visual_embeds=visual_embeds,
            visual_index=visual,
            position_ids=right_pad([positions for positions, _ in placed]),
            last_index=lengths - 1,
        )
        result = self.runner.prefill(layout, feed, self.caches, **options)
        self.text_len = lengths - layout.visual_tokens
        self.position = np.array([after for _, after in placed])
        return result

    def step(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        """Run new tokens -> logits float32 [B, vocabulary] of each row's last one.

        A row without new tokens is carried along: its slot is written and not counted.

        Raises:
            LuvcError: a row has no room left.
        """
        counts = np.array([len(t) for t in tokens])
        longest = int(counts.max())
        for row in range(len(tokens)):
            if counts[row] and longest > self.room(row):
                raise LuvcError(
                    f"{longest} more text tokens do not fit: the bundle holds "
                    f"{self.manifest.text_capacity} for prompts and answers of a conversation, "
                    f"{self.text_len[row]} are used; export with a larger --text-capacity"
                )
        ids = right_pad([t or [0] for t in tokens])
        write = np.minimum(self.text_len, self.manifest.text_capacity - longest)
        feed = StepFeed(
            input_ids=ids,
            position_ids=next_positions(
                self.position, longest, self.manifest.language.position_axes
            ),
            text_len=np.where(counts > 0, self.text_len, write),
            last_index=np.maximum(counts, 1) - 1,
        )
        logits = self.runner.step(self.layout, feed, self.caches)
        self.text_len = self.text_len + counts
        self.position = self.position + counts
        return logits


def right_pad(rows: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
    """Rows [S, ...] of unequal length -> int64 [B, longest, ...], zeros behind."""
    out = np.zeros((len(rows), max(map(len, rows)), *np.shape(rows[0])[1:]), np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


class Row:
    """One answer being made: sampling, detokenisation, stopping.

    Args:
        tokenizer: the Hugging Face tokenizer.
        sampling: how tokens are chosen and when to stop.
        prompt: the prompt's token ids.
        row: place in the batch; rows of one seed draw differently.
    """

    def __init__(self, tokenizer: Any, sampling: Sampling, prompt: Sequence[int], row: int = 0):
        self.tokenizer, self.sampling = tokenizer, sampling
        self.sampler = Sampler(sampling, prompt, row)
        self.ids: list[int] = []
        self.text = ""
        self.finish_reason: str | None = None
        self._stream = _decode_stream()
        self._held = ""

    def accept(self, logits: np.ndarray) -> str:
        """Choose a token from logits [vocabulary] -> the text that became certain."""
        token = self.sampler.choose(logits)
        self.ids.append(token)
        if token in self.sampling.eos_token_id:
            return self.finish("stop")
        self._held += self._decode(token)
        cut = self._stop_position()
        if cut is not None:
            self._held = self._held[:cut]
            return self.finish("stop", whole=False)
        if len(self.ids) >= self.sampling.max_new_tokens:
            return self.finish("length")
        return self._emit(len(self._held) - self._unsure())

    def finish(self, reason: str, whole: bool = True) -> str:
        """End the answer -> the last text; `whole` adds bytes the stream still held back."""
        self.finish_reason = reason
        if whole:
            text = self._whole()
            sent = self.text + self._held
            if text.startswith(sent):
                self._held += text[len(sent) :]
        return self._emit(len(self._held))

    def _decode(self, token: int) -> str:
        """The text that is certain with a token; in byte-level vocabularies it may be none yet."""
        tokenizer = self.tokenizer.backend_tokenizer
        try:
            return self._stream.step(tokenizer, token) or ""
        except Exception:  # bytes that are no text spoil the stream; the error has no own class
            self._stream = _decode_stream()
            self._stream.step(tokenizer, token)
            sent, whole = self.text + self._held, self._whole().rstrip("\ufffd")
            return whole[len(sent) :] if whole.startswith(sent) else ""

    def _whole(self) -> str:
        """Text of all tokens so far."""
        return self.tokenizer.decode(self.ids, skip_special_tokens=True)

    def _emit(self, count: int) -> str:
        piece, self._held = self._held[:count], self._held[count:]
        self.text += piece
        return piece

    def _stop_position(self) -> int | None:
        found = [i for i in (self._held.find(s) for s in self.sampling.stop if s) if i >= 0]
        return min(found) if found else None

    def _unsure(self) -> int:
        """Characters at the end that may be the start of a stop text."""
        longest = 0
        for stop in self.sampling.stop:
            for n in range(min(len(stop) - 1, len(self._held)), 0, -1):
                if self._held.endswith(stop[:n]):
                    longest = max(longest, n)
                    break
        return longest


def _decode_stream() -> Any:
    from tokenizers.decoders import DecodeStream

    return DecodeStream(skip_special_tokens=True)
