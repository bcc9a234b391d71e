"""The scheduler: what it answers, and how requests share its steps."""

import threading

import pytest

from ...conftest import ask
from .conftest import ALL, pictures, until

QUESTIONS = ("Why?", "What is in the upper left corner of the picture?", "Describe the colours.")


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
        scheduler.submit(
            ask("Why?", picture[:56, : 56 + 56 * (i % 2)]),
            max_new_tokens=2,
            notify=lambda t, i=i: t.done and done.append(i),
        )
        for i in range(6)
    ]
    assert [t.answer.layout for t in tickets] == ["56x56", "56x112"] * 3
    assert done == list(range(6))


def test_an_answer_ends_at_the_capacity(serve, vlm, picture):
    scheduler = serve(rows=2)
    neighbour = scheduler.submit(ask("Why?", picture), max_new_tokens=5)
    answer = scheduler.submit(ask("Why?", picture), max_new_tokens=5000).answer
    assert answer.finish_reason == "capacity"
    assert answer.token_ids == vlm.generate(ask("Why?", picture), max_new_tokens=5000).token_ids
    assert len(neighbour.answer.token_ids) == 5


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
