"""Continuous batching: requests join and leave a running batch between two steps.

A request passes three stations. Preparing threads render and tokenise its prompt and cut its pictures,
in the order of arrival and only a few requests ahead. One running thread then lets the oldest prepared
request in as soon as a cache row is free, together with others of its layout, and after each such group
runs one step over all rows in use. So nobody waits for another's whole answer, and no answer stalls for
more than one group's prefill. Letters: B batch.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Unpack

import numpy as np

from ...errors import LuvcError
from ..backends.base import SharedRunner
from ..closing import Closing
from ..prompt.messages import is_batch
from ..prompt.processing import Messages
from ..prompt.wishes import RequestOptions, parted
from .conversations import Conversations
from .job import Job, run_together
from .limits import Counters, Limits
from .pool import Pool, Pools
from .prefill import run
from .prefixes import Prefixes
from .ticket import Busy, Cancelled, Ticket
from .workers import Workers

if TYPE_CHECKING:
    from ..runtime import VLM


class Scheduler(Closing):
    """Answers many requests on one model.

    Args:
        vlm: the model; nothing else may use it meanwhile.
        limits: what may be used.
        ahead: run the vision graph while preparing, one request at a time: right when it runs
            elsewhere. Otherwise it runs with the prefill, for the whole group.

    Raises:
        LuvcError: the runner cannot share caches, or they do not fit into memory.
    """

    def __init__(self, vlm: "VLM", limits: Limits | None = None, *, ahead: bool = False):
        self.vlm = vlm
        self.limits = limits or Limits()
        self.ahead = ahead
        if not isinstance(vlm.runner, SharedRunner):
            raise LuvcError(f"{vlm.runner.description} cannot share caches between requests")
        self.conversations = Conversations(self.limits.session_mib << 20)
        self.prefixes = Prefixes(vlm.processor, self.limits.prefix_mib << 20)
        self.counters = Counters()
        self._arrived: deque[Job] = deque()
        self._prepared: deque[Job] = deque()
        self._preparing = 0
        self._pools: Pools[Job] = Pools(vlm.runner, vlm.manifest, self.limits.rows)
        self._pools.of(vlm.manifest.layouts[0])  # refuse now what no request could use
        self._changed = threading.Condition()
        works = [self._prepare_loop] * self.limits.preparing + [self._run_loop]
        self._workers = Workers(works, self._changed, self._refuse_all)
        self._workers.start()

    def submit(
        self,
        messages: Messages,
        *,
        conversation: str | None = None,
        notify: Callable[[Ticket], None] | None = None,
        **options: Unpack[RequestOptions],
    ) -> Ticket:
        """Hand in a request.

        Args:
            messages: a conversation, as for `VLM.generate`; of a kept one, its new turns.
            conversation: key of one that is kept: turns with a picture begin it (again), turns
                without continue it on its caches.
            notify: see Ticket.
            options: as of `VLM.generate`.

        Raises:
            LuvcError: not one conversation, or an option is out of range; the ticket raises the rest.
            Busy: too many requests are waiting.
        """
        if is_batch(messages):
            raise LuvcError("a request is one conversation; hand in several one by one")
        wish, rest = parted(options)
        sampling = self.vlm.sampling.override(**rest)
        job = Job(list(messages), sampling, wish, conversation, Ticket(notify))
        with self._changed:
            if self._workers.ended:
                raise self._gone()
            self._purge()
            if self.waiting >= self.limits.waiting:
                full = f"{self.waiting} requests are waiting, which is the limit"
                raise Busy(f"{full}; try again later")
            self._arrived.append(job)
            self._changed.notify_all()
        return job.ticket

    @property
    def waiting(self) -> int:
        """Requests without a row."""
        return len(self._arrived) + self._preparing + len(self._prepared)

    @property
    def running(self) -> int:
        """Rows in use."""
        return sum(len(pool.jobs) for pool in self._pools.in_use())

    def close(self) -> None:
        """Refuse what waits, give up what runs, give the caches back; the model stays open."""
        self._closed = True
        self._workers.end("the model was stopped")
        self._workers.join()
        self._refuse_all()
        self._pools.close()
        self.conversations.clear()
        self.prefixes.clear()

    # ---- preparing
    def _prepare_loop(self) -> None:
        most = 2 * self.limits.prefill  # prepared requests hold pixels
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: (
                        self._workers.ended
                        or (self._arrived and len(self._prepared) + self._preparing < most)
                    )
                )
                if self._workers.ended:
                    return
                job = self._arrived.popleft()
                self._preparing += 1
            try:
                self._prepare(job)
            except BaseException as error:  # nobody else knows of it
                self._fail(job, error)
                raise
            finally:
                del job  # let go: this thread may wait long for another
                with self._changed:
                    self._preparing -= 1
                    self._changed.notify_all()

    def _prepare(self, job: Job) -> None:
        try:
            if job.ticket.cancelled:
                self._drop(job)
                return
            job.prepare(self.vlm, self.conversations, self.prefixes, self.ahead)
        except BaseException as error:
            self._fail(job, error)
        else:
            with self._changed:
                self._prepared.append(job)
            if self._workers.ended:  # perhaps after all others were refused
                self._refuse_all()

    # ---- running
    def _run_loop(self) -> None:
        """Nothing may end this thread: nobody else answers the requests that follow."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._workers.ended or self._ready() or self.running)
                if self._workers.ended:
                    return
            self._let_in()
            for pool in self._pools.in_use():
                try:
                    self._step(pool)
                except BaseException as error:
                    self._empty(pool, error)

    def _let_in(self) -> None:
        """Run the prompts of the oldest prepared request and of those that can go with it."""
        with self._changed:
            group = self._next_group()
            self._changed.notify_all()  # there is room to prepare more
        if not group:
            return
        try:
            pool = self._pools.of(group[0].prompt.layout)
            logits = run(self.vlm, pool, group, self.prefixes)
        except BaseException as error:
            for job in group:
                self._fail(job, error)
        else:
            self.counters.prefills += 1
            self.counters.prefilled_rows += len(group)
            try:
                self._accept(pool, len(pool.jobs) - len(group), logits)
            except BaseException as error:
                self._empty(pool, error)

    def _ready(self) -> list[Job]:
        """What need not wait for another one to make its prefix."""
        return [job for job in self._prepared if self.prefixes.settled(job.claim)]

    def _next_group(self) -> list[Job]:
        self._purge()
        free = self.limits.rows - self.running
        group = run_together(self._ready(), min(free, self.limits.prefill))
        for job in group:
            self._prepared.remove(job)
        return group

    def _step(self, pool: Pool[Job]) -> None:
        """One token for every row in use; rows that end, or must, leave."""
        for row in reversed(range(len(pool.jobs))):
            job = pool.jobs[row]
            if job.ticket.cancelled or pool.rows.room(row) < 1:
                with self._alone(pool, job):
                    job.end("cancelled" if job.ticket.cancelled else "capacity")
                    self._leave(pool, row)
        if not pool.jobs:
            return
        logits = pool.step([job.reply.ids[-1:] for job in pool.jobs])
        self.counters.steps += 1
        self.counters.stepped_rows += len(pool.jobs)
        self._accept(pool, 0, logits)

    def _accept(self, pool: Pool[Job], first: int, logits: np.ndarray) -> None:
        """The next token of each row from `first` on, from logits [B, vocabulary]."""
        for row in reversed(range(first, len(pool.jobs))):
            job = pool.jobs[row]
            with self._alone(pool, job):
                if job.accept(logits[row - first]):
                    self._leave(pool, row)

    @contextlib.contextmanager
    def _alone(self, pool: Pool[Job], job: Job):
        """Work for one row: when it fails, the row is free and its neighbours run on."""
        try:
            yield
        except BaseException as error:
            if job in pool.jobs:
                pool.leave(pool.jobs.index(job))
            self._fail(job, error)

    def _leave(self, pool: Pool[Job], row: int) -> None:
        """Hand out an answer and free its row, which a kept conversation has a copy of."""
        job = pool.jobs[row]
        if job.reply.finish_reason == "cancelled":
            self.counters.cancelled += 1
            job.release(self.conversations)
        elif job.conversation is not None and job.key is not None:
            length = pool.rows.length(row)
            job.conversation.history.close(job.turns, job.prompt, job.reply, length)
            job.conversation.parked = pool.park(row)
            self.conversations.keep(job.key, job.conversation)
        pool.leave(row)
        job.finish(self.vlm)

    # ---- ends without an answer
    def _gone(self) -> Busy:
        return Busy(f"{self._workers.ended}; send the request to another server")

    def _refuse_all(self) -> None:
        """Fail what waits and what runs."""
        with self._changed:
            running = [job for pool in self._pools.in_use() for job in pool.jobs]
            jobs = [*self._arrived, *self._prepared, *running]
            self._arrived.clear()
            self._prepared.clear()
        for job in jobs:
            if not job.ticket.done:
                self._fail(job, self._gone())

    def _purge(self) -> None:
        """Drop what was given up while it waited, so that it takes nobody's place."""
        for queue in (self._arrived, self._prepared):
            for job in [j for j in queue if j.ticket.cancelled]:
                queue.remove(job)
                self._drop(job)

    def _drop(self, job: Job) -> None:
        self.counters.cancelled += 1
        gone = Cancelled("the request was cancelled before it began")
        job.fail(self.conversations, self.prefixes, gone)

    def _empty(self, pool: Pool[Job], error: BaseException) -> None:
        """Fail all that runs in a pool whose rows are in doubt."""
        jobs = pool.jobs
        try:
            pool.clear()
        finally:
            for job in jobs:
                self._fail(job, error)

    def _fail(self, job: Job, error: BaseException) -> None:
        self.counters.failed += 1
        job.fail(self.conversations, self.prefixes, error)
