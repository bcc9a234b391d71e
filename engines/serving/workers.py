"""The threads of a scheduler, which end together."""

import logging
import threading
from collections.abc import Callable, Sequence

from ...errors import printable

LOG = logging.getLogger(__name__)


class Workers:
    """Threads that work until they are told to end, or until one of them fails.

    Args:
        works: each a thread's; returns soon after `ended` says something.
        changed: notified at the end; works wait for it.
        refuse: called when one has failed: gives an answer to whoever waits for them.

    Attributes:
        ended: why they work no more; empty while they do.
    """

    def __init__(
        self,
        works: Sequence[Callable[[], None]],
        changed: threading.Condition,
        refuse: Callable[[], None],
    ):
        self.ended = ""
        self._changed, self._refuse = changed, refuse
        self._threads = [
            threading.Thread(target=self._work, args=(work,), daemon=True) for work in works
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def end(self, why: str) -> None:
        """Tell them to end; the first reason stays."""
        with self._changed:
            self.ended = self.ended or why
            self._changed.notify_all()

    def join(self) -> None:
        """Wait for their ends."""
        for thread in self._threads:
            thread.join()

    def _work(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            LOG.exception("a thread of the scheduler has ended, and with it the scheduler")
            said = f"{type(error).__name__}: {printable(str(error), 200)}"
            self.end(f"the scheduler has ended ({said}), load the model again")
            self._refuse()
