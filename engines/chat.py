"""A conversation that keeps its caches: a later turn runs only its own tokens.

When that is not possible (see history.py), the whole conversation is run afresh, and
`Answer.reused_tokens` is 0.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, overload

from ..errors import LuvcError
from .answer import Answer, Pieces, Stream, Timing, single
from .decoding import Rows, decode
from .history import History
from .prompt.processing import ImageSource, Prompt
from .prompt.wishes import Wish
from .reply import Reply
from .sampling import Sampling

if TYPE_CHECKING:
    from .runtime import VLM


class Chat:
    """Turns of one conversation.

    Args:
        vlm: the model.
        sampling: how answers are made.
        wish: what is asked of the layout, in every turn.
    """

    def __init__(self, vlm: "VLM", sampling: Sampling, wish: Wish | None = None):
        self.vlm, self.sampling = vlm, sampling
        self.wish = wish
        self.history = History(vlm.processor)
        self._rows: Rows | None = None
        self._running: Stream | None = None

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The turns so far."""
        return self.history.messages

    @overload
    def ask(
        self, text: str, images: Sequence[ImageSource] = (), *, stream: Literal[False] = False
    ) -> Answer: ...

    @overload
    def ask(
        self, text: str, images: Sequence[ImageSource] = (), *, stream: Literal[True]
    ) -> Stream: ...

    @overload
    def ask(
        self, text: str, images: Sequence[ImageSource] = (), *, stream: bool
    ) -> Answer | Stream: ...

    def ask(
        self, text: str, images: Sequence[ImageSource] = (), *, stream: bool = False
    ) -> Answer | Stream:
        """Ask the next question.

        Args:
            text: the question.
            images: pictures that come before it.
            stream: return a Stream instead of the Answer; read it before the next question, which
                cancels an unread one and takes what there is of it as the answer.

        Raises:
            LuvcError: as `VLM.generate`; the turn is not added then.
        """
        unread, self._running = self._running, None
        if unread is not None:
            unread.cancel()
            try:
                _ = unread.answer
            except BaseException:  # the caches may be ahead of the history
                self._rows = None
                raise
        if not isinstance(images, Sequence) or isinstance(images, (str, bytes)):
            raise LuvcError("images is a list of pictures; put a single one into a list")
        parts = [{"type": "image", "image": image} for image in images]
        asked = {"role": "user", "content": [*parts, {"type": "text", "text": text}]}
        (turn,) = self.vlm.processor.opened([asked])
        prompt = self.vlm.processor.prompt([*self.messages, turn], self.wish)
        cancelled = threading.Event()
        self._running = Stream(single(self._answer(turn, prompt, cancelled)), cancelled)
        return self._running if stream else self._running.answer

    def _answer(self, turn: dict[str, Any], prompt: Prompt, cancelled: threading.Event) -> Pieces:
        """Yields one-row text pieces, returns the list of one answer."""
        try:
            return (yield from self._run(turn, prompt, cancelled))
        except BaseException:  # the caches may be ahead of the history: the next turn runs afresh
            self._rows = None
            raise
        finally:
            self._running = None

    def _run(self, turn: dict[str, Any], prompt: Prompt, cancelled: threading.Event) -> Pieces:
        history = self.history
        new = history.continuation(prompt, self._rows.room(0)) if self._rows else []
        reused = len(history.cached) if new else 0
        if new:
            start = perf_counter()
            assert self._rows is not None
            logits = self._rows.step([new])
            timing = Timing(prefill_ms=(perf_counter() - start) * 1e3)
            history.cached += new
        else:
            self._rows, result, timing = self.vlm.prefill([prompt])
            logits = result.logits
            history.begin(prompt, self.vlm.stage_counts(prompt.layout, result))
        reply = Reply(self.vlm.processor.tokenizer, self.sampling, history.cached)
        per_token = yield from decode(self._rows, [reply], logits, cancelled)
        history.close([turn], prompt, reply, self._rows.length(0))
        timing = replace(timing, decode_ms_per_token=per_token)
        return [self.vlm.answer(prompt, reply, history.stages, timing, reused)]
