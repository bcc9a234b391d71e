"""A scheduler's ticket, awaited by an event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable

from ...engines.answer import Answer
from ...engines.serving import Ticket


class Awaited:
    """One request of a scheduler."""

    def __init__(self):
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.ticket: Ticket | None = None

    async def begin(self, submit: Callable[[Callable[[Ticket], None]], Ticket]) -> None:
        """Hand it in.

        Args:
            submit: does so, given the ticket's `notify`; it takes time, so it runs in a thread.

        Raises:
            LuvcError: it was refused.
        """
        self.ticket = await asyncio.to_thread(submit, self._notify)

    def _notify(self, ticket: Ticket) -> None:
        self._loop.call_soon_threadsafe(self._news.set)

    async def pieces(self) -> AsyncIterator[str]:
        """Text as it comes.

        Raises:
            LuvcError: the request cannot be met.
        """
        assert self.ticket is not None
        while True:
            done = self.ticket.done  # asked before draining: nothing is added afterwards
            text = self.ticket.drain()
            if text:
                yield text
            if done:
                break
            await self._news.wait()
            self._news.clear()
        if self.ticket.error is not None:
            raise self.ticket.error

    async def answer(self) -> Answer:
        """The whole answer.

        Raises:
            LuvcError: the request cannot be met.
        """
        async for _ in self.pieces():
            pass
        assert self.ticket is not None
        return self.ticket.answer

    def cancel(self) -> None:
        """Give it up; harmless when it has ended."""
        if self.ticket is not None:
            self.ticket.cancel()


def forget_frames(error: BaseException) -> None:
    """Drop an error's trace, and those of its causes.

    Its frames hold the request, whose ticket holds the error: that cycle would wait for the collector.
    """
    seen: BaseException | None = error
    while seen is not None:
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__
