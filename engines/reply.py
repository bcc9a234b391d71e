"""One row's answer while it is made: from logits to text, until it ends (stopping.py says when)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import stopping
from .answer import TokenLogprob
from .sampling import Sampler, Sampling, log_probabilities


class Reply:
    """One answer being made: sampling, detokenising, ending.

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
        self.logprobs: list[TokenLogprob] = []
        self.text = ""
        self.finish_reason: str | None = None
        self._stream = _decode_stream()
        self._held = ""

    @property
    def ended(self) -> bool:
        """Whether nothing follows any more."""
        return self.finish_reason is not None

    def accept(self, logits: np.ndarray) -> str:
        """Choose a token from logits [vocabulary] -> the text that became certain."""
        token = self.sampler.choose(logits)
        self.ids.append(token)
        if stopping.is_end(token, self.sampling):
            return self.finish("stop")
        if self.sampling.logprobs is not None:
            self.logprobs.append(_logprob(token, logits, self.sampling.logprobs))
        self._held += self._detokenise(token)
        cut = stopping.stop_text(self._held, self.sampling)
        if cut is not None:
            self._held = self._held[:cut]
            return self.finish("stop", whole=False)
        if stopping.is_full(len(self.ids), self.sampling):
            return self.finish("length")
        return self._emit(len(self._held) - stopping.unsure(self._held, self.sampling))

    def finish(self, reason: str, whole: bool = True) -> str:
        """End the answer -> the last text.

        Args:
            reason: as `Answer.finish_reason` names it.
            whole: add bytes that the stream still holds back.
        """
        self.finish_reason = reason
        if whole:
            text = self._whole()
            sent = self.text + self._held
            if text.startswith(sent):
                self._held += text[len(sent) :]
        return self._emit(len(self._held))

    def _detokenise(self, token: int) -> str:
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


def _logprob(token: int, logits: np.ndarray, count: int) -> TokenLogprob:
    """Of a token, and of the `count` likeliest in its place."""
    scores = log_probabilities(logits)
    best = np.argpartition(-scores, min(count, len(scores) - 1))[:count]
    best = best[np.lexsort((best, -scores[best]))]
    likeliest = tuple((int(i), float(scores[i])) for i in best)
    return TokenLogprob(token, float(scores[token]), likeliest)


def _decode_stream() -> Any:
    from tokenizers.decoders import DecodeStream

    return DecodeStream(skip_special_tokens=True)
