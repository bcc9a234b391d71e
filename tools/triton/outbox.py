"""Sends answers from a thread of its own, so that no step of the model waits for a client.

Text that came together since the last response of a request is sent together.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from ...engines.serving import Ticket

LOG = logging.getLogger(__name__)
POLL = 0.02  # seconds between two looks for requests that were given up
IDLE = 0.25  # and between two calls of `idle`


class Outbox:
    """Open requests and their senders.

    Args:
        respond: (text, answer or None) -> a response; with an answer, the last one of a request.
        refuse: exception -> a response.
        final: flag of a request's last response.
        idle: called every IDLE seconds.
    """

    def __init__(
        self,
        respond: Callable[[str, Any], Any],
        refuse: Callable[[BaseException], Any],
        final: int,
        idle: Callable[[], None],
    ):
        self._respond = respond
        self._refuse = refuse
        self._final = final
        self._idle = idle
        self._news: SimpleQueue[Ticket | None] = SimpleQueue()
        self._open: dict[Ticket, tuple[Any, bool]] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def notify(self, ticket: Ticket) -> None:
        """Something is new about a ticket."""
        self._news.put(ticket)

    def open(self, ticket: Ticket, sender: Any, stream: bool) -> None:
        """Send what becomes of a ticket; without `stream`, in one response."""
        self._open[ticket] = (sender, stream)
        self._news.put(ticket)  # it may have ended before it stood here

    def close(self) -> None:
        """Send what is ready and stop."""
        self._news.put(None)
        self._thread.join()

    def _run(self) -> None:
        """Nothing may end this thread: nobody else answers."""
        looked = idled = 0.0
        while True:
            with contextlib.suppress(Empty):
                ticket = self._news.get(timeout=POLL)
                if ticket is None:
                    return
                self._answer(ticket)
            now = time.monotonic()
            if now - looked >= POLL:
                looked = now
                _attempt(self._look)
            if now - idled >= IDLE:
                idled = now
                _attempt(self._idle)

    def _look(self) -> None:
        """Cancel what clients have given up."""
        for ticket, (sender, _) in list(self._open.items()):
            if not ticket.cancelled:
                _attempt(self._ask, ticket, sender)

    def _ask(self, ticket: Ticket, sender: Any) -> None:
        """Cancel a ticket whose client has gone, or cannot be asked."""
        gone = True
        try:
            gone = sender.is_cancelled()
        finally:
            if gone:
                ticket.cancel()

    def _answer(self, ticket: Ticket) -> None:
        """Send what is new about a ticket; one whose response fails is given up."""
        if ticket not in self._open:
            return
        sender, stream = self._open[ticket]
        try:
            self._send(ticket, sender, stream)
        except Exception as error:
            self._open.pop(ticket, None)
            ticket.cancel()
            _attempt(self._fail, sender, error)

    def _send(self, ticket: Ticket, sender: Any, stream: bool) -> None:
        if ticket.done:  # asked before draining: nothing is added afterwards
            del self._open[ticket]
            if ticket.error is not None:
                self._fail(sender, ticket.error)
            else:
                text = ticket.drain() if stream else ticket.answer.text
                sender.send(self._respond(text, ticket.answer), flags=self._final)
        elif stream:
            text = ticket.drain()
            if text:
                sender.send(self._respond(text, None))

    def _fail(self, sender: Any, error: BaseException) -> None:
        sender.send(self._refuse(error), flags=self._final)


def _attempt(work: Callable[..., object], *arguments: Any) -> None:
    """Do it; a failure is logged, so that the other requests are served all the same."""
    try:
        work(*arguments)
    except Exception:
        LOG.exception("the sender of answers goes on after a failure")
