"""Continuous batching: requests join and leave a running batch between two steps.

A request passes three stations. Preparing threads render and tokenise its prompt and cut its pictures,
in the order of arrival and only a few requests ahead. One running thread then lets the oldest prepared
request in as soon as a cache row is free, together with others of its layout, and after each such group
runs one step over all rows in use. So nobody waits for another's whole answer, and no answer stalls for
more than one group's prefill. Letters: B batch, V visual tokens.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from ...errors import LuvcError
from ..answer import Timing
from ..backends.base import SharedRunner
from ..manifest import Layout
from .job import Job, embedded
from .limits import Counters, Limits
from .pool import Pool
from .sessions import Sessions
from .ticket import Busy, Ticket

if TYPE_CHECKING:
    from ..runtime import VLM


class Scheduler:
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
        self.vlm, self.limits, self.ahead = vlm, limits or Limits(), ahead
        if not hasattr(vlm.runner, "window"):
            raise LuvcError(f"{vlm.runner.description} cannot share caches between requests")
        self.sessions = Sessions(self.limits.session_mib << 20)
        self.counters = Counters()
        self._arrived: deque[Job] = deque()
        self._prepared: deque[Job] = deque()
        self._preparing = 0
        self._pools: dict[str, Pool[Job]] = {}
        self._changed = threading.Condition()
        self._closed = False
        first = self._pool(vlm.manifest.layouts[0])
        first.space(self.limits.rows)  # whether the runner can
        works = [self._prepare_loop] * self.limits.preparing + [self._run_loop]
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        session: str | None = None,
        layout: str | None = None,
        notify: Callable[[Ticket], None] | None = None,
        **options: Any,
    ) -> Ticket:
        """Hand in a request.

        Args:
            messages: a conversation, as for `VLM.generate`; with a session, its new turns.
            session: key of a conversation that is kept: turns with a picture begin it (again), turns
                without continue it on its caches.
            layout: name of a layout; default by the images' number and size.
            notify: see Ticket.
            options: fields of `Sampling`.

        Raises:
            LuvcError: an option is out of range; what else is wrong is raised by the ticket.
            Busy: too many requests are waiting.
        """
        sampling = self.vlm.sampling.override(**options)
        ticket = Ticket(notify)
        job = Job(list(messages), sampling, layout, session, ticket)
        with self._changed:
            if self._closed:
                raise Busy("the model is being stopped; send the request to another server")
            if self.waiting >= self.limits.waiting:
                raise Busy(
                    f"{self.waiting} requests are waiting, which is the limit; try again later"
                )
            self._arrived.append(job)
            self._changed.notify_all()
        return ticket

    @property
    def waiting(self) -> int:
        """Requests without a row."""
        return len(self._arrived) + self._preparing + len(self._prepared)

    @property
    def running(self) -> int:
        """Rows in use."""
        return sum(len(pool.jobs) for pool in list(self._pools.values()))

    def close(self) -> None:
        """Refuse what waits, give up what runs, stop the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        left = [*self._arrived, *self._prepared]
        for job in [*left, *(j for pool in self._pools.values() for j in pool.jobs)]:
            self._fail(job, Busy("the model was stopped; send the request to another server"))

    # ---- preparing
    def _prepare_loop(self) -> None:
        most = 2 * self.limits.prefill  # prepared requests hold pixels
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: (
                        self._closed
                        or (self._arrived and len(self._prepared) + self._preparing < most)
                    )
                )
                if self._closed:
                    return
                job = self._arrived.popleft()
                self._preparing += 1
            try:
                self._prepare(job)
            finally:
                with self._changed:
                    self._preparing -= 1
                    self._changed.notify_all()

    def _prepare(self, job: Job) -> None:
        try:
            if job.ticket.cancelled:
                self._drop(job)
                return
            job.prepare(self.vlm, self.sessions, self.ahead)
        except Exception as error:
            self._fail(job, error)
        else:
            with self._changed:
                self._prepared.append(job)

    # ---- running
    def _run_loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._prepared or self.running)
                if self._closed:
                    return
            self._let_in()
            for pool in [p for p in self._pools.values() if p.jobs]:
                try:
                    self._step(pool)
                except Exception as error:
                    jobs = list(pool.jobs)
                    pool.clear()
                    for job in jobs:
                        self._fail(job, error)

    def _let_in(self) -> None:
        """Run the prompts of the oldest prepared request and of those that can go with it."""
        with self._changed:
            group = self._next_group()
            self._changed.notify_all()  # there is room to prepare more
        if not group:
            return
        pool = self._pool(group[0].prompt.layout)
        try:
            logits = (self._resume if group[0].new else self._prefill)(pool, group)
        except Exception as error:
            for job in group:
                self._fail(job, error)
            return
        ended = [job.accept(row) for job, row in zip(group, logits, strict=True)]
        for job, over in zip(group, ended, strict=True):
            if over:
                self._leave(pool, pool.jobs.index(job))

    def _next_group(self) -> list[Job]:
        for job in [j for j in self._prepared if j.ticket.cancelled]:
            self._prepared.remove(job)
            self._drop(job)
        free = self.limits.rows - self.running
        if not self._prepared or free < 1:
            return []
        head = self._prepared[0]
        layout = head.prompt.layout.name
        alike = [j for j in self._prepared if not j.new and j.prompt.layout.name == layout]
        group = [head] if head.new else alike[: min(free, self.limits.prefill)]
        for job in group:
            self._prepared.remove(job)
        return group

    def _prefill(self, pool: Pool[Job], group: list[Job]):
        """Whole prompts into new rows -> logits [B, vocabulary]."""
        start = perf_counter()
        seen = embedded(self.vlm, group)
        prompts = [job.prompt for job in group]
        rows, result, timing = self.vlm.prefill(prompts, seen, pool.space(len(group)))
        stages = self.vlm.stage_counts(pool.layout, result)
        for job in group:
            job.stages = stages
            if job.session is not None:
                job.session.history.begin(job.prompt, stages)
        self._join(pool, rows, group, timing, start)
        return result.logits

    def _resume(self, pool: Pool[Job], group: list[Job]):
        """New text on top of a session's row -> logits [1, vocabulary]."""
        (job,) = group
        assert job.session is not None and job.session.parked is not None
        start = perf_counter()
        rows = pool.unpark(job.session.parked)
        logits = rows.step([job.new])
        timing = Timing(prefill_ms=(perf_counter() - start) * 1e3)
        history = job.session.history
        job.session.parked = None
        job.stages, job.reused = history.stages, len(history.cached)
        history.cached += job.new
        self._join(pool, rows, group, timing, start)
        return logits

    def _join(self, pool, rows, group: list[Job], timing, start: float) -> None:
        for job in group:
            job.begin(self.vlm, timing, start)
        pool.join(rows, group)
        self.counters.prefills += 1
        self.counters.prefilled_rows += len(group)

    def _step(self, pool: Pool[Job]) -> None:
        """One token for every row in use; rows that end, or must, leave."""
        for row in reversed(range(len(pool.jobs))):
            job = pool.jobs[row]
            if job.ticket.cancelled or pool.rows.room(row) < 1:
                job.end("cancelled" if job.ticket.cancelled else "capacity")
                self._leave(pool, row)
        if not pool.jobs:
            return
        logits = pool.rows.step([job.state.ids[-1:] for job in pool.jobs])
        self.counters.steps += 1
        self.counters.stepped_rows += len(pool.jobs)
        for row in reversed(range(len(pool.jobs))):
            if pool.jobs[row].accept(logits[row]):
                self._leave(pool, row)

    def _leave(self, pool: Pool[Job], row: int) -> None:
        """Hand out an answer and free its row, which a session keeps a copy of."""
        job = pool.jobs[row]
        if job.state.finish_reason == "cancelled":
            self.counters.cancelled += 1
            self._forget(job)
        elif job.session is not None and job.key is not None:
            length = pool.rows.length(row)
            job.session.history.close(job.turns, job.prompt, job.state, length)
            job.session.parked = pool.park(row)
            self.sessions.keep(job.key, job.session)
        pool.leave(row)
        job.finish(self.vlm)

    def _pool(self, layout: Layout) -> Pool[Job]:
        if layout.name not in self._pools:
            runner = cast(SharedRunner, self.vlm.runner)  # __init__ has looked
            rows = self.limits.rows
            self._pools[layout.name] = Pool(runner, self.vlm.manifest, layout, rows)
        return self._pools[layout.name]

    # ---- ends without an answer
    def _drop(self, job: Job) -> None:
        self.counters.cancelled += 1
        if job.key is not None and job.session is not None:
            self.sessions.release(job.key, job.session)
        job.ticket.fail(Busy("cancelled before it began"))

    def _fail(self, job: Job, error: BaseException) -> None:
        self.counters.failed += 1
        if job.key is not None and job.session is not None:
            if job.begun:
                self._forget(job)
            else:
                self.sessions.release(job.key, job.session)
        job.ticket.fail(error)

    def _forget(self, job: Job) -> None:
        if job.key is not None and job.session is not None:
            self.sessions.drop(job.key)
