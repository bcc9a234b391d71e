"""Those who leave or find no place: cancelled requests, a full queue, a scheduler that is closed."""

import threading

import pytest

from luvc.engines.serving import Busy, Cancelled, Limits, Scheduler

from ...conftest import ask
from .conftest import ALL, until


def test_cancel_ends_within_a_step(serve, gate, picture):
    scheduler = serve(rows=2)
    other = scheduler.submit(ask("Describe the colours.", picture), max_new_tokens=60)
    until(lambda: scheduler.running)
    ticket = scheduler.submit(ask("Why?", picture), max_new_tokens=70)
    until(lambda: scheduler._prepared)
    gate.release()  # a step of the other alone; then the ticket's prompt is run
    seen = next(ticket)
    ticket.cancel()
    gate.release()
    until(lambda: ticket.done)
    answer = ticket.answer
    assert answer.finish_reason == "cancelled" and len(answer.token_ids) <= 2
    assert seen + "".join(ticket) == answer.text
    gate.release(ALL)
    assert other.answer.finish_reason == "length", "the neighbour is not disturbed"
    assert scheduler.counters.cancelled == 1


def test_cancelled_while_waiting_is_never_run(serve, gate, picture):
    scheduler = serve(rows=1, prefill=1)
    first = scheduler.submit(ask("Why?", picture), max_new_tokens=40)
    until(lambda: scheduler.running)
    second = scheduler.submit(ask("Why?", picture))
    second.cancel()
    gate.release(ALL)
    with pytest.raises(Cancelled, match="before it began"):
        _ = second.answer
    assert first.answer.finish_reason and scheduler.counters.prefilled_rows == 1


def test_many_that_give_up_leave_the_way_free(serve, gate, picture):
    """All that is prepared is given up at once, with more behind it: the next must still be served."""
    scheduler = serve(rows=1, prefill=1, preparing=1)
    first = scheduler.submit(ask("Why?", picture), max_new_tokens=60)
    until(lambda: scheduler.running)
    tickets = [scheduler.submit(ask("Why?", picture), max_new_tokens=60) for _ in range(8)]
    until(lambda: len(scheduler._prepared) == 2)
    for ticket in tickets[:4]:
        ticket.cancel()
    tickets[-1].cancel()
    first.cancel()
    gate.release(ALL)
    for ticket in tickets[4:-1]:
        assert len(ticket.answer.token_ids) == 60
    assert scheduler.counters.cancelled == 6 and scheduler.waiting == scheduler.running == 0


def test_the_queue_is_bounded(serve, gate, picture):
    scheduler = serve(rows=1, prefill=1, waiting=2)
    tickets = [scheduler.submit(ask("Why?", picture), max_new_tokens=60)]
    until(lambda: scheduler.running)
    tickets += [scheduler.submit(ask("Why?", picture), max_new_tokens=2) for _ in range(2)]
    with pytest.raises(Busy, match="2 requests are waiting"):
        scheduler.submit(ask("Why?", picture))
    gate.release(ALL)
    assert [len(t.answer.token_ids) for t in tickets] == [60, 2, 2]


def test_a_cancelled_request_leaves_its_place_in_the_queue(serve, gate, picture):
    scheduler = serve(rows=1, prefill=1, waiting=4)
    tickets = [scheduler.submit(ask("Why?", picture), max_new_tokens=2)]
    until(lambda: scheduler.running)
    tickets += [scheduler.submit(ask("Why?", picture), max_new_tokens=2) for _ in range(4)]
    until(lambda: len(scheduler._prepared) == 2)
    with pytest.raises(Busy, match="4 requests are waiting"):
        scheduler.submit(ask("Why?", picture))
    given_up = tickets.pop()
    given_up.cancel()
    tickets.append(scheduler.submit(ask("Why?", picture), max_new_tokens=2))
    with pytest.raises(Cancelled):
        _ = given_up.answer
    gate.release(ALL)
    assert all(len(t.answer.token_ids) == 2 for t in tickets)


def test_close_answers_everyone(vlm, gate, picture):
    scheduler = Scheduler(vlm, Limits(rows=1))
    tickets = [scheduler.submit(ask("Why?", picture), max_new_tokens=70) for _ in range(3)]
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    until(lambda: scheduler._closed)
    gate.release(ALL)
    closing.join()
    for ticket in tickets:
        with pytest.raises(Busy, match="stopped"):
            _ = ticket.answer
    with pytest.raises(Busy, match="was stopped"):
        scheduler.submit(ask("Why?", picture))
