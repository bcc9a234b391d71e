"""What an answer is, whole or as it is made."""

import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Timing:
    """Where the time of an answer went, in milliseconds.

    Attributes:
        pixels_ms: image processor.
        vision_ms: vision graph.
        prefill_ms: prefill graph.
        decode_ms_per_token: decoding, sampling and detokenising of one token.
        queue_ms: what a request of a scheduler waited for others; 0 outside of one.
    """

    pixels_ms: float = 0.0
    vision_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms_per_token: float = 0.0
    queue_ms: float = 0.0

    @property
    def first_token_ms(self) -> float:
        """Time to first token, from the request to the first token's logits."""
        return self.queue_ms + self.pixels_ms + self.vision_ms + self.prefill_ms


@dataclass(frozen=True)
class TokenLogprob:
    """How likely the model found a token in its place, whatever the options of the sampling.

    Attributes:
        token_id: of the answer.
        logprob: natural logarithm of its probability.
        likeliest: ids and log-probabilities of the likeliest tokens there, best first.
    """

    token_id: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Answer:
    """One answer and what it cost.

    Attributes:
        text: decoded, without special tokens.
        token_ids: generated ids, the end token included.
        finish_reason: "stop", "length" (max_new_tokens), "capacity" (caches full, or the model's positions
            at their end) or "cancelled".
        prompt_tokens: text tokens of the prompt.
        visual_tokens: visual tokens that entered the language model.
        layout: name of the layout that was used.
        ratio: baseline / compressed that this layout was exported for.
        stages: visual tokens left from each pruned layer on, as counted in the graph's outputs.
        reused_tokens: tokens taken from the caches of earlier turns.
        timing: milliseconds per part.
        notes: what was done that was not asked for: another ratio, and to the pictures what the model's
            own processor would not have done.
        logprobs: of each token but the one that ends the answer, where `Sampling.logprobs` asks for them.
    """

    text: str
    token_ids: list[int]
    finish_reason: str
    prompt_tokens: int
    visual_tokens: int
    layout: str
    stages: dict[int, int]
    reused_tokens: int
    timing: Timing
    notes: tuple[str, ...] = ()
    ratio: float = 1.0
    logprobs: tuple[TokenLogprob, ...] = ()


Pieces = Generator[list[str], None, list[Answer]]
"""A batch being answered: yields each row's new text, returns the answers."""


class Stream(Iterator[str]):
    """An answer as it is made: iterate for pieces of text; `answer` is complete at the end.

    Args:
        pieces: yields text pieces and returns the answer.
        cancelled: set by `cancel`.
    """

    def __init__(self, pieces: Generator[str, None, Answer], cancelled: threading.Event):
        self._pieces, self._cancelled = pieces, cancelled
        self._answer: Answer | None = None
        self._error: BaseException | None = None

    def __next__(self) -> str:
        """The next piece; a loop may be left and taken up again."""
        try:
            return next(self._pieces)
        except StopIteration as end:
            if end.value is not None:
                self._answer = end.value
            raise
        except BaseException as error:
            self._error = error
            raise

    @property
    def answer(self) -> Answer:
        """The whole answer; runs what is left of it.

        Raises:
            LuvcError: the request cannot be met; what ended the stream is raised again.
        """
        if self._error is not None:
            raise self._error
        if self._answer is None:
            for _ in self:
                pass
        assert self._answer is not None
        return self._answer

    def cancel(self) -> None:
        """End the answer before its next token; safe from another thread."""
        self._cancelled.set()


def drain(pieces: Generator[object, None, T]) -> T:
    """Run a generator to its end -> what it returns."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value


def single(batch: Pieces) -> Generator[str, None, Answer]:
    """The pieces and the answer of a batch of one."""
    while True:
        try:
            (piece,) = next(batch)
        except StopIteration as end:
            return end.value[0]
        if piece:
            yield piece
