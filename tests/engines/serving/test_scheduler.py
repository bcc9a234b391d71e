"""The scheduler: what it answers, how it shares, and what it does with those who leave."""

import threading
import time

import numpy as np
import pytest
from PIL import Image

from luvc.engines.reply import Reply
from luvc.engines.serving import Busy, Cancelled, Limits, Scheduler
from luvc.engines.serving.pool import Pool
from luvc.errors import LuvcError

from ...conftest import ask

QUESTIONS = ("Why?", "What is in the upper left corner of the picture?", "Describe the colours.")


@pytest.fixture
def vlm(workshop):
    return workshop.vlm("qwen2")


@pytest.fixture
def serve(vlm):
    """Make schedulers that are closed at the end."""
    made = []

    def make(model=vlm, **limits) -> Scheduler:
        ahead = limits.pop("ahead", False)
        made.append(Scheduler(model, Limits(**limits), ahead=ahead))
        return made[-1]

    yield make
    for scheduler in made:
        scheduler.close()


ALL = 1000  # more steps than any test makes


@pytest.fixture
def gate(serve, vlm, monkeypatch):
    """Steps that `vlm` may make: each waits for a release. `serve` closes after all are released."""
    allowed, step = threading.Semaphore(0), vlm.runner.step
    monkeypatch.setattr(vlm.runner, "step", lambda *feed: allowed.acquire() and step(*feed))
    yield allowed
    allowed.release(ALL)


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come about"
        time.sleep(0.002)


def pictures(picture):
    return [picture, picture[:, ::-1].copy(), 255 - picture]


@pytest.mark.parametrize("ahead", [False, True])
def test_answers_of_a_crowd_equal_those_alone(workshop, vlm, serve, picture, ahead):
    """Twelve requests of unequal prompts and lengths through four rows, greedy and sampled."""
    scheduler = serve(rows=4, prefill=3, ahead=ahead)
    requests = []
    for i in range(12):
        options = {"max_new_tokens": 3 + 5 * (i % 4)}
        if i % 2:
            options |= {"seed": i, "temperature": 1.5, "top_p": 0.95}
        requests.append((ask(QUESTIONS[i % 3], pictures(picture)[i // 4]), options))
    tickets = [scheduler.submit(m, **o) for m, o in requests]
    for (messages, options), ticket in zip(requests, tickets, strict=True):
        alone = workshop.vlm("qwen2").generate(messages, **options)
        assert ticket.answer.token_ids == alone.token_ids
        assert ticket.answer.text == alone.text == "".join(ticket)
        for field in ("finish_reason", "stages", "prompt_tokens", "visual_tokens", "layout"):
            assert getattr(ticket.answer, field) == getattr(alone, field)
    counters = scheduler.counters
    assert counters.prefilled_rows == 12 and counters.prefills < 12
    assert counters.stepped_rows == sum(len(t.answer.token_ids) - 1 for t in tickets)
    assert counters.steps < counters.stepped_rows / 2, "steps are shared"
    assert scheduler.running == scheduler.waiting == 0


def test_a_request_joins_a_running_batch(serve, gate, picture):
    """The second begins and ends while the first is still running."""
    scheduler = serve(rows=2)
    long = scheduler.submit(ask("Why?", picture), max_new_tokens=70)
    until(lambda: scheduler.running)
    short = scheduler.submit(ask("Describe the colours.", picture), max_new_tokens=3)
    until(lambda: scheduler._prepared)
    gate.release(3)  # one of the first alone, two of both
    until(lambda: short.done)
    assert len(short.answer.token_ids) == 3 and not long.done
    gate.release(ALL)
    assert len(long.answer.token_ids) == 70


def test_the_oldest_goes_first_and_no_layout_starves(workshop, serve, picture):
    """One row, two layouts in turn: the order of arrival is the order of answers."""
    scheduler = serve(workshop.vlm("qwen2-layouts", 1), rows=1, prefill=4, preparing=1)
    done = []
    tickets = [
        scheduler.submit(ask("Why?", picture[:56, : 56 + 56 * (i % 2)]), max_new_tokens=2,
                         notify=lambda t, i=i: t.done and done.append(i))
        for i in range(6)
    ]  # fmt: skip
    assert [t.answer.layout for t in tickets] == ["56x56", "56x112"] * 3
    assert done == list(range(6))


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


def test_a_layout_without_memory_fails_its_requests_alone(workshop, serve, picture, monkeypatch):
    vlm = workshop.vlm("qwen2-layouts", 1)
    scheduler = serve(vlm, rows=1)

    def refuse(layout, batch):
        raise LuvcError("the caches do not fit")

    monkeypatch.setattr(vlm.runner, "new_caches", refuse)
    wide, small = picture[:56, :112], picture[:56, :56]
    ticket = scheduler.submit(ask("Why?", wide), max_new_tokens=2)
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


def test_an_answer_ends_at_the_capacity(serve, vlm, picture):
    scheduler = serve(rows=2)
    neighbour = scheduler.submit(ask("Why?", picture), max_new_tokens=5)
    answer = scheduler.submit(ask("Why?", picture), max_new_tokens=5000).answer
    assert answer.finish_reason == "capacity"
    assert answer.token_ids == vlm.generate(ask("Why?", picture), max_new_tokens=5000).token_ids
    assert len(neighbour.answer.token_ids) == 5


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
    with pytest.raises(Busy, match="being stopped"):
        scheduler.submit(ask("Why?", picture))


# ---- kept conversations
def test_a_conversation_continues_on_its_caches(serve, workshop, picture):
    """Two conversations by turns, among other requests: each turn equals a Chat's."""
    scheduler = serve(rows=3)
    crowd = [scheduler.submit(ask("Why?", picture), max_new_tokens=30) for _ in range(3)]
    chats = {k: workshop.vlm("qwen2").chat(max_new_tokens=5) for k in "ab"}
    images = dict(zip("ab", pictures(picture), strict=False))
    for text in ("What is it?", "And the colours?", "Why?"):
        for key, chat in chats.items():
            first = not chat.messages
            turn = ask(text, images[key]) if first else ask(text)
            answer = scheduler.submit(turn, conversation=key, max_new_tokens=5).answer
            expected = chat.ask(text, [images[key]] if first else [])
            assert answer.token_ids == expected.token_ids
            assert answer.reused_tokens == expected.reused_tokens
            assert bool(answer.reused_tokens) != first
    assert all(len(t.answer.token_ids) == 30 for t in crowd)


@pytest.mark.parametrize("form", ["path", "url", "image_url", "tuple"])
def test_a_conversation_takes_pictures_in_every_form(serve, picture, tmp_path, form):
    """It keeps the picture itself: the file may be gone at the next turn."""
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    part = {"type": "image", "image" if form == "tuple" else form: str(path)}
    if form == "image_url":
        part = {"type": "image_url", "image_url": {"url": str(path)}}
    content = [part, {"type": "text", "text": "Why?"}]
    turn = {"role": "user", "content": tuple(content) if form == "tuple" else content}
    scheduler = serve()
    ticket = scheduler.submit([turn], conversation="a", max_new_tokens=3)
    until(lambda: ticket.done)
    assert len(ticket.answer.token_ids) == 3 and scheduler.conversations.bytes > picture.size
    path.unlink()
    assert scheduler.submit(ask("And?"), conversation="a", max_new_tokens=3).answer.reused_tokens


def test_a_conversation_whose_stop_text_was_cut_runs_afresh(serve, workshop, vlm, picture):
    text = workshop.vlm("qwen2").generate(ask("Why?", picture), max_new_tokens=20).text
    scheduler = serve()
    options = {"conversation": "a", "max_new_tokens": 20, "stop": text[10:13]}
    assert scheduler.submit(ask("Why?", picture), **options).answer.finish_reason == "stop"
    second = scheduler.submit(ask("And?"), **options).answer
    chat = workshop.vlm("qwen2").chat(max_new_tokens=20, stop=text[10:13])
    chat.ask("Why?", [picture])
    assert second.reused_tokens == 0 and second.token_ids == chat.ask("And?").token_ids


def test_unknown_busy_refused_and_cancelled_conversations(serve, gate, picture):
    scheduler = serve()
    with pytest.raises(LuvcError, match="conversation 'x' is unknown or was evicted"):
        _ = scheduler.submit(ask("Why?"), conversation="x").answer
    long = scheduler.submit(ask("Why?", picture), conversation="x", max_new_tokens=6)
    next(long)
    with pytest.raises(Busy, match="answering another request"):
        _ = scheduler.submit(ask("And?"), conversation="x").answer
    gate.release(5)
    assert long.answer.text
    with pytest.raises(LuvcError, match="text tokens"):
        _ = scheduler.submit(ask("word " * 200), conversation="x").answer
    again = scheduler.submit(ask("And?"), conversation="x", max_new_tokens=40)
    gate.release()  # its new text; the step after that waits
    until(lambda: scheduler.running)
    again.cancel()
    gate.release(ALL)
    assert again.answer.finish_reason == "cancelled"
    assert len(scheduler.conversations) == 0 and scheduler.conversations.bytes == 0
    with pytest.raises(LuvcError, match="unknown or was evicted"):
        _ = scheduler.submit(ask("And?"), conversation="x").answer


def test_conversations_are_evicted_by_age_and_bytes(serve, vlm, picture):
    row = vlm.manifest.kv_bytes(vlm.manifest.layouts[0])
    each = row + picture.size
    scheduler = serve(session_mib=3)
    fit = 3 * 2**20 // each
    assert 1 < fit < 20
    for i in range(fit + 2):
        _ = scheduler.submit(ask("Why?", picture), conversation=f"s{i}", max_new_tokens=2).answer
        assert scheduler.conversations.bytes <= 3 * 2**20
    assert len(scheduler.conversations) == fit and scheduler.conversations.evicted == 2
    with pytest.raises(LuvcError, match="'s0' is unknown"):
        _ = scheduler.submit(ask("And?"), conversation="s0").answer
    assert scheduler.submit(ask("And?"), conversation="s2", max_new_tokens=2).answer.reused_tokens


# ---- the pool
def test_rows_move_and_park_without_loss(vlm):
    """Rows carry distinct marks; after any order of leaving, what is left is what was there."""
    layout = vlm.manifest.layouts[0]
    pool: Pool = Pool(vlm.runner, vlm.manifest, layout, 6)
    draw = np.random.default_rng(0)
    held: dict[int, int] = {}
    from luvc.engines.decoding import Rows

    def check():
        assert sorted(pool.jobs) == sorted(held)
        for row, job in enumerate(pool.jobs):
            window = vlm.runner.window(pool._caches, row, 1)
            assert all((c == job).all() for c in vlm.runner.read_caches(window).values())
            assert pool.rows.text_len[row] == held[job]

    for mark in range(1, 60):
        if len(held) < 6:
            caches = pool.space(1)
            empty = vlm.runner.read_caches(caches)
            marked = {name: np.full_like(c, mark) for name, c in empty.items()}
            vlm.runner.write_caches(caches, marked)
            rows = Rows(vlm.runner, vlm.manifest, layout, 1, caches)
            rows.text_len[:] = held[mark] = int(draw.integers(50))
            pool.join(rows, [mark])
            check()
        if draw.random() < 0.6:
            row = int(draw.integers(len(pool.jobs)))
            parked = pool.park(row)
            assert all((c == pool.jobs[row]).all() for c in parked.caches.values())
            held.pop(pool.jobs[row])
            pool.leave(row)
            if held:
                check()


def test_many_threads_hand_in_at_once(serve, vlm, picture):
    scheduler = serve(rows=4)
    expected = vlm.generate(ask("Why?", picture), max_new_tokens=6).token_ids
    seen = []

    def client():
        for _ in range(5):
            seen.append(scheduler.submit(ask("Why?", picture), max_new_tokens=6).answer.token_ids)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert seen == [expected] * 40
