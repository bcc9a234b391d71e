"""Sends answers from a thread of its own, so that no step of the model waits for a client.

Text that came together since the last response of a request is sent together.
"""

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from ...engines.serving import Ticket

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
        self._respond, self._refuse, self._final, self._idle = respond, refuse, final, idle
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
        looked = idled = 0.0
        while True:
            try:
                ticket = self._news.get(timeout=POLL)
                if ticket is None:
                    return
                self._send(ticket)
            except Empty:
                pass
            now = time.monotonic()
            if now - looked >= POLL:
                looked = now
                for open_ticket, (sender, _) in list(self._open.items()):
                    if not open_ticket.cancelled and sender.is_cancelled():
                        open_ticket.cancel()
            if now - idled >= IDLE:
                idled = now
                self._idle()

    def _send(self, ticket: Ticket) -> None:
        if ticket not in self._open:
            return
        sender, stream = self._open[ticket]
        if ticket.done:  # asked before draining: nothing is added afterwards
            del self._open[ticket]
            if ticket.error is not None:
                response = self._refuse(ticket.error)
            else:
                text = ticket.drain()
                response = self._respond(text if stream else ticket.answer.text, ticket.answer)
            sender.send(response, flags=self._final)
        elif stream:
            text = ticket.drain()
            if text:
                sender.send(self._respond(text, None))
