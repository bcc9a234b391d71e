"""A conversation that keeps its caches: a later turn runs only its own tokens.

A later turn equals a fresh prefill of the whole conversation when all images stand in the first turn,
the chat template only appends, and the ids in the caches say what the conversation says: visual tokens
come before any later text, attention is causal (models whose prompt looks at all of itself are run
afresh) and the SPU scores visual tokens alone, so later text
can change neither which tokens are kept nor what they hold. Where the template rewrites earlier turns,
a new image arrives, or the last answer's ids say more than its text (a stop text was cut off, a special
token was generated), the whole conversation is run afresh, and `Answer.reused_tokens` is 0.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .answer import Stream, Timing, single
from .decoding import Row, Rows
from .processing import Prompt, open_image
from .sampling import Sampling

if TYPE_CHECKING:
    from .runtime import VLM


class Chat:
    """Turns of one conversation.

    Args:
        vlm: the model.
        sampling: how answers are made.
    """

    def __init__(self, vlm: "VLM", sampling: Sampling):
        self.vlm, self.sampling = vlm, sampling
        self.messages: list[dict[str, Any]] = []
        self._rows: Rows | None = None
        self._stages: dict[int, int] = {}
        self._cached: list[int] = []  # ids whose keys and values are in the caches
        # the conversation so far, rendered, the last answer included; None: not what is cached
        self._text: str | None = None
        self._pending: list[int] = []  # generated ids that are not in the caches yet
        self._running: Stream | None = None

    def ask(self, text: str, images: Sequence[Any] = (), *, stream: bool = False) -> Any:
        """Ask the next question.

        Args:
            text: the question.
            images: pictures that come before it.
            stream: return a Stream instead of the Answer; read it before the next question, which
                cancels an unread one and takes what there is of it as the answer.

        Raises:
            LuvcError: as `VLM.generate`; the turn is not added then.
        """
        if self._running is not None:
            self._running.cancel()
            _ = self._running.answer
        parts = [{"type": "image", "image": open_image(image)} for image in images]
        turn = {"role": "user", "content": [*parts, {"type": "text", "text": text}]}
        prompt = self.vlm.processor.prompt([*self.messages, turn])
        cancelled = threading.Event()
        self._running = Stream(single(self._answer(turn, prompt, cancelled)), cancelled)
        return self._running if stream else self._running.answer

    def _answer(self, turn: dict[str, Any], prompt: Prompt, cancelled: threading.Event):
        """Yields one-row text pieces, returns the list of one answer."""
        new = self._continuation(prompt)
        reused = len(self._cached) if new else 0
        if new:
            start = perf_counter()
            assert self._rows is not None
            logits = self._rows.step([new])
            timing = Timing(prefill_ms=(perf_counter() - start) * 1e3)
            self._cached += new
        else:
            self._rows, result, timing = self.vlm.prefill([prompt])
            logits, self._cached = result.logits, list(prompt.input_ids)
            self._stages = self.vlm.stage_counts(prompt.layout, result)
        state = Row(self.vlm.processor.tokenizer, self.sampling, self._cached)
        per_token = yield from self.vlm.decode(self._rows, [state], logits, cancelled)
        self._close_turn(turn, prompt, state)
        timing = replace(timing, decode_ms_per_token=per_token)
        return [self.vlm.answer(prompt, state, self._stages, timing, reused)]

    def _continuation(self, prompt: Prompt) -> list[int]:
        """Ids to run on top of the caches; empty when the conversation must be run afresh.

        The generated ids are taken as they are: tokenising their text again may give others.
        """
        rows = self._rows
        if rows is None or rows.layout.name != prompt.layout.name:
            return []
        if self.vlm.manifest.language.whole_prompt:
            return []
        if self._text is None or not prompt.text.startswith(self._text):
            return []
        rest = self.vlm.processor.tokenise(prompt.text[len(self._text) :], start=False)
        new = self._pending + rest
        return new if len(new) < rows.room(0) else []

    def _close_turn(self, turn: dict[str, Any], prompt: Prompt, state: Row) -> None:
        """Remember what is cached and what the conversation now says."""
        assert self._rows is not None
        held = int(self._rows.text_len[0]) + self._rows.layout.visual_tokens
        fed = held - len(self._cached)
        self._cached += state.ids[:fed]
        ends = self.sampling.eos_token_id
        self._pending = [t for t in state.ids[fed:] if t not in ends]  # the template writes the end
        said = self.vlm.processor.tokenizer.decode([t for t in state.ids if t not in ends])
        self._text = prompt.text + state.text if said == state.text else None
        answer = {"role": "assistant", "content": [{"type": "text", "text": state.text}]}
        self.messages += [turn, answer]
        self._running = None
