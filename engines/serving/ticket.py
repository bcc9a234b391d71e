"""A request that was handed in: what its owner holds, reads and may give up."""

import logging
import threading
from collections.abc import Callable, Iterator

from ...errors import LuvcError
from ..answer import Answer

LOG = logging.getLogger(__name__)


class Busy(LuvcError):
    """No room at this moment; the same request may succeed later."""


class Cancelled(LuvcError):
    """The owner gave the request up before it began."""


class Ticket(Iterator[str]):
    """An answer in the making: iterate for pieces of text; `answer` waits for the whole.

    All methods may be called from any thread.

    Args:
        notify: called with the ticket whenever there is something new, from whichever thread brought
            it and perhaps with the scheduler locked: it must return at once. What it raises is logged.
    """

    def __init__(self, notify: Callable[["Ticket"], None] | None = None):
        self._notify = notify
        self._changed = threading.Condition()
        self._text: list[str] = []
        self._answer: Answer | None = None
        self._error: BaseException | None = None
        self._cancelled = False

    @property
    def done(self) -> bool:
        """Whether the answer is complete or has failed."""
        return self._answer is not None or self._error is not None

    @property
    def error(self) -> BaseException | None:
        """Why there will be no answer."""
        return self._error

    @property
    def cancelled(self) -> bool:
        """Whether the owner has given it up."""
        return self._cancelled

    @property
    def answer(self) -> Answer:
        """The whole answer, waited for.

        Raises:
            LuvcError: the request cannot be met as it stands.
            Cancelled: it was given up before it began; after that, what there is of it is returned.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.done)
        if self._error is not None:
            raise self._error
        assert self._answer is not None
        return self._answer

    def __next__(self) -> str:
        """The text since the last call, waited for."""
        with self._changed:
            self._changed.wait_for(lambda: self._text or self.done)
            if self._text:
                return self.drain()
        if self._error is not None:
            raise self._error
        raise StopIteration

    def drain(self) -> str:
        """The text since the last call, which may be none."""
        with self._changed:
            text = "".join(self._text)
            self._text.clear()
            return text

    def cancel(self) -> None:
        """Give up: it never begins, or ends before its next step, and the caches are free."""
        self._cancelled = True

    # ---- the scheduler's side
    def add(self, text: str) -> None:
        """More text."""
        if text:
            self._change(lambda: self._text.append(text))

    def finish(self, answer: Answer) -> None:
        """The answer is complete."""
        self._end(lambda: setattr(self, "_answer", answer))

    def fail(self, error: BaseException) -> None:
        """There will be no answer."""
        self._end(lambda: setattr(self, "_error", error))

    def _end(self, change: Callable[[], object]) -> None:
        """The last change; its owner is let go, who holds the ticket: cycles wait for a collector."""
        self._change(change)
        self._notify = None

    def _change(self, change: Callable[[], object]) -> None:
        with self._changed:
            change()
            self._changed.notify_all()
        if self._notify is None:
            return
        try:
            self._notify(self)
        except Exception:  # the owner's fault, and this thread has others to answer
            LOG.exception("the notify of a request failed")
