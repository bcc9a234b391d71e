"""What fails, fails alone: wrong requests, layouts without memory, bugs."""

import pytest

from luvc.engines.reply import Reply
from luvc.engines.serving import Busy
from luvc.errors import LuvcError

from ...conftest import ask
from .conftest import ALL, until


def test_wrong_requests_fail_alone(serve, picture):
    scheduler = serve(rows=2)
    good = scheduler.submit(ask("Why?", picture), max_new_tokens=30)
    cases = {
        "no image": ask("Why?"),
        "text tokens": ask("word " * 200, picture),
        "cannot be read": ask("Why?", b"not a picture"),
        "a message needs": [{"role": "user"}],
    }
    for message, request in cases.items():
        with pytest.raises(LuvcError, match=message):
            _ = scheduler.submit(request).answer
    with pytest.raises(LuvcError, match="top_p"):
        scheduler.submit(ask("Why?", picture), top_p=7)
    assert len(good.answer.token_ids) == 30


def test_a_bug_fails_what_runs_and_nothing_else(serve, vlm, picture, monkeypatch):
    scheduler = serve(rows=2)
    step = vlm.runner.step
    monkeypatch.setattr(vlm.runner, "step", lambda *a: 1 / 0)
    ticket = scheduler.submit(ask("Why?", picture), max_new_tokens=4)
    with pytest.raises(ZeroDivisionError):
        _ = ticket.answer
    monkeypatch.setattr(vlm.runner, "step", step)
    assert len(scheduler.submit(ask("Why?", picture), max_new_tokens=4).answer.token_ids) == 4


def test_what_runs_is_told_where_its_pool_has_no_memory_left(serve, vlm, picture, monkeypatch):
    """Caches are made anew when a pool is emptied; where they cannot be, nobody waits for ever."""
    scheduler = serve(rows=2)
    _ = scheduler.submit(ask("Why?", picture), max_new_tokens=2).answer

    def refuse(*about):
        raise LuvcError("the caches do not fit")

    def broken(*about):
        monkeypatch.setattr(vlm.runner, "new_caches", refuse)
        raise ZeroDivisionError

    monkeypatch.setattr(vlm.runner, "step", broken)
    ticket = scheduler.submit(ask("Why?", picture), max_new_tokens=4)
    until(lambda: ticket.done)
    with pytest.raises(ZeroDivisionError):
        _ = ticket.answer


def test_a_prompt_without_memory_fails_alone(workshop, serve, picture, monkeypatch):
    """Caches grow for a longer prompt; where they cannot, others are answered."""
    vlm = workshop.vlm("qwen2-layouts", 1)
    scheduler, grown = serve(vlm, rows=1), vlm.runner.grown

    def refuse(layout, caches, slots):
        if slots[0] > 40:
            raise LuvcError("the caches do not fit")
        return grown(layout, caches, slots)

    monkeypatch.setattr(vlm.runner, "grown", refuse)
    small = picture[:56, :56]
    ticket = scheduler.submit(ask("Why? " * 20, small), max_new_tokens=2)
    until(lambda: ticket.done)
    with pytest.raises(LuvcError, match="do not fit"):
        _ = ticket.answer
    assert len(scheduler.submit(ask("Why?", small), max_new_tokens=2).answer.token_ids) == 2


@pytest.mark.parametrize("after", [0, 3])
def test_a_bug_in_one_answer_leaves_its_neighbours(serve, vlm, picture, monkeypatch, after):
    """Sampling and detokenising are done for each row: the first token and any later one may fail."""
    accept = Reply.accept

    def fail_one(reply, logits):
        failing = (reply.sampling.seed, len(reply.ids)) == (9, after)
        return 1 / 0 if failing else accept(reply, logits)

    monkeypatch.setattr(Reply, "accept", fail_one)
    scheduler = serve(rows=3)
    options = {"max_new_tokens": 20, "do_sample": False}
    tickets = [scheduler.submit(ask("Why?", picture), seed=s, **options) for s in (8, 9, 7)]
    until(lambda: all(t.done for t in tickets))
    with pytest.raises(ZeroDivisionError):
        _ = tickets[1].answer
    expected = vlm.generate(ask("Why?", picture), **options).token_ids
    assert tickets[0].answer.token_ids == tickets[2].answer.token_ids == expected
    assert scheduler.running == 0 and scheduler.counters.failed == 1


def test_a_notify_that_fails_is_logged(serve, picture, caplog):
    scheduler = serve(rows=2)
    other = scheduler.submit(ask("Why?", picture), max_new_tokens=10)
    ticket = scheduler.submit(ask("Why?", picture), max_new_tokens=4, notify=lambda t: 1 / 0)
    until(lambda: "the notify of a request failed" in caplog.text)
    assert len(ticket.answer.token_ids) == 4 and len(other.answer.token_ids) == 10


class Panic(BaseException):
    """As the Rust code of tokenizers raises them."""


def panic(*_):
    raise Panic("in Rust")


@pytest.mark.parametrize("place", ["prompt", "prefill", "step", "accept"])
def test_what_is_no_exception_ends_its_request_and_no_thread(
    serve, vlm, picture, monkeypatch, place
):
    owner = {"prompt": vlm.processor, "accept": Reply}.get(place, vlm.runner)
    scheduler = serve(rows=2)
    with monkeypatch.context() as patch:
        patch.setattr(owner, place, panic)
        ticket = scheduler.submit(ask("Why?", picture), max_new_tokens=4)
        until(lambda: ticket.done)
        with pytest.raises(RuntimeError, match="ended by Panic: in Rust"):
            _ = ticket.answer
    assert len(scheduler.submit(ask("Why?", picture), max_new_tokens=4).answer.token_ids) == 4


@pytest.mark.parametrize("thread", ["_let_in", "_prepare"])
def test_no_request_waits_for_a_thread_that_has_ended(
    serve, gate, picture, monkeypatch, caplog, thread
):
    """A bug of the scheduler's own: what runs, what waits and what comes is told."""
    scheduler = serve(rows=1, prefill=1, preparing=1)
    tickets = [scheduler.submit(ask("Why?", picture), max_new_tokens=9)]
    until(lambda: scheduler.running)
    monkeypatch.setattr(scheduler, thread, panic)
    tickets += [scheduler.submit(ask("Why?", picture), max_new_tokens=9) for _ in range(3)]
    gate.release(ALL)
    until(lambda: all(t.done for t in tickets))
    for ticket in tickets:
        with pytest.raises((Busy, RuntimeError), match=r"(has ended \(|ended by )Panic: in Rust"):
            _ = ticket.answer
    with pytest.raises(Busy, match="send the request to another server"):
        scheduler.submit(ask("Why?", picture))
    assert "a thread of the scheduler has ended" in caplog.text


@pytest.mark.parametrize("messages", [None, 1, {}, "Why?", [None], [[ask("Why?")]], []])
def test_what_is_no_conversation_is_refused(serve, messages):
    scheduler = serve(rows=1)
    with pytest.raises(LuvcError):
        _ = scheduler.submit(messages).answer
