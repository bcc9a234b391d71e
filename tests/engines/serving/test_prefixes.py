"""What comes up to the last picture is run once: a hit is the miss, within its memory, in every mishap."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from luvc.engines import VLM
from luvc.engines.serving.job import Job
from luvc.engines.serving.prefixes import Claim, Prefix, Prefixes
from luvc.errors import LuvcError

from ...conftest import ask
from .conftest import pictures, until

QUESTIONS = ("Why?", "What is in the upper left corner of the picture?", "Describe the colours.")


@pytest.fixture
def ran(vlm, monkeypatch):
    """Rows of every prompt and of every picture that were run."""
    found: dict[str, list[int]] = {"prefill": [], "vision": []}

    def counting(name, rows):
        work = getattr(vlm.runner, name)

        def counted(layout, feed, *more):
            found[name].append(rows(feed))
            return work(layout, feed, *more)

        monkeypatch.setattr(vlm.runner, name, counted)

    counting("prefill", lambda feed: len(feed.input_ids))
    counting("vision", len)
    return found


@pytest.fixture
def logits(monkeypatch):
    """Logits of every token of every answer, by the answer's ticket."""
    found: dict[object, list[np.ndarray]] = {}
    accept = Job.accept

    def recorded(job, one):
        found.setdefault(job.ticket, []).append(one.copy())
        return accept(job, one)

    monkeypatch.setattr(Job, "accept", recorded)
    return found


def asked(scheduler, text, *images, **options):
    ticket = scheduler.submit(ask(text, *images), **{"max_new_tokens": 8} | options)
    return ticket, ticket.answer


def test_a_hit_is_the_miss_to_the_last_bit(serve, workshop, picture, ran, logits):
    scheduler, alone = serve(prefix_mib=8), workshop.vlm("qwen2")
    _, first = asked(scheduler, "Hello", picture)
    assert first.reused_tokens == 0 and (len(ran["vision"]), len(ran["prefill"])) == (1, 1)
    for text in QUESTIONS:
        hit, found = asked(scheduler, text, picture)
        miss, wanted = asked(serve(prefix_mib=8), text, picture)
        off, plain = asked(serve(), text, picture)
        assert np.array_equal(logits[hit], logits[miss]) and len(logits[hit]) == 8
        assert np.abs(logits[hit][0] - logits[off][0]).max() < 1e-4
        own = alone.generate(ask(text, picture), max_new_tokens=8)
        assert found.token_ids == wanted.token_ids == plain.token_ids == own.token_ids
        assert (found.stages, found.prompt_tokens) == (own.stages, own.prompt_tokens)
        prompt = alone.processor.prompt(ask(text, picture)).input_ids
        image = alone.manifest.language.image_token_id
        assert prompt[found.reused_tokens - 2] == image not in prompt[found.reused_tokens :]
        assert (wanted.reused_tokens, plain.reused_tokens, found.timing.vision_ms) == (0, 0, 0)
    kept = scheduler.prefixes
    assert (kept.hits, kept.misses, len(kept)) == (3, 1, 1)
    assert 0 < kept.bytes < alone.manifest.kv_bytes(alone.manifest.layouts[0])
    assert len(ran["prefill"]) == 1 + 2 * len(QUESTIONS)


def test_other_pictures_texts_and_layouts_are_others(workshop, serve, picture):
    vlm = workshop.vlm("qwen2-layouts", 1)
    scheduler = serve(vlm, prefix_mib=8)
    small, wide = picture[:56, :56], picture[:56, :112]
    for images in ((small,), (wide,), (255 - small,), (small, wide), (wide, small)):
        for text in ("Why?", "Where?"):
            _, answer = asked(scheduler, text, *images)
            assert bool(answer.reused_tokens) == (text == "Where?")
            assert answer.token_ids == vlm.generate(ask(text, *images), max_new_tokens=8).token_ids
    told = [{"role": "system", "content": "Be brief."}, *ask("Where?", small)]
    answer = scheduler.submit(told, max_new_tokens=8).answer
    assert answer.reused_tokens == 0 and len(scheduler.prefixes) == 6


def test_earlier_turns_are_part_of_it(workshop, serve, picture):
    """A client that sends its whole conversation each time, as OpenAI's do, and a kept one."""
    vlm, scheduler = workshop.vlm("qwen2"), serve(prefix_mib=8)
    _, first = asked(scheduler, "Why?", picture)
    said = {"role": "assistant", "content": first.text}
    turns = [*ask("Why?", picture), said, *ask("And the colours?")]
    answer = scheduler.submit(turns, max_new_tokens=8).answer
    assert answer.token_ids == vlm.generate(turns, max_new_tokens=8).token_ids
    chat = vlm.chat(max_new_tokens=8)
    for text, images in (("Why?", [picture]), ("And the colours?", [])):
        _, kept = asked(scheduler, text, *images, conversation="a")
        own = chat.ask(text, images)
        assert kept.token_ids == own.token_ids and kept.stages == own.stages
        assert kept.reused_tokens == (own.reused_tokens or answer.reused_tokens)
    moved = [{"role": "user", "content": "Hello"}, said, *ask("Why?", picture)]
    later = [scheduler.submit(moved, max_new_tokens=8).answer for _ in range(2)]
    assert later[0].reused_tokens == 0 < answer.reused_tokens < later[1].reused_tokens
    assert later[1].token_ids == vlm.generate(moved, max_new_tokens=8).token_ids


def test_a_crowd_of_many_pictures_stays_within_the_memory(serve, workshop, picture):
    scheduler = serve(rows=4, prefill=3, prefix_mib=1)
    asked(scheduler, "Hello", 255 - picture)
    limit = scheduler.prefixes.limit = 3 * scheduler.prefixes.bytes
    alone, images = workshop.vlm("qwen2"), [np.roll(picture, 9 * i, axis=1) for i in range(9)]
    wanted = [alone.generate(ask("Why?", i), max_new_tokens=4).token_ids for i in images]
    order = [*range(9), *range(9), 8, 8, 7, 0]
    tickets = [scheduler.submit(ask("Why?", images[i]), max_new_tokens=4) for i in order]
    for i, ticket in zip(order, tickets, strict=True):
        assert ticket.answer.token_ids == wanted[i] and scheduler.prefixes.bytes <= limit
    kept = scheduler.prefixes
    assert 0 < kept.evicted <= kept.misses - len(kept), (
        "what those in use leave no room for is not kept"
    )
    assert kept.hits + kept.misses == len(order) + 1 and 0 < len(kept) <= 3
    for image, reused in ((picture[::-1], False), (picture[::-1], True)):
        assert bool(asked(scheduler, "Why?", image)[1].reused_tokens) == reused
    assert kept.bytes <= limit


def prefixes(vlm: VLM, size: int, rows: int) -> tuple[Prefixes, list[Claim]]:
    """Room for `rows` prefixes of `size` bytes, and claims of five pictures."""
    kept = Prefixes(vlm.processor, 1 << 30)
    shown = [
        vlm.processor.prompt(ask("Why?", np.full((168, 168, 3), i, np.uint8))) for i in range(5)
    ]
    claims = [claim for claim in map(kept.claim, shown) if claim is not None]
    kept.limit = size * rows
    return kept, claims


def test_the_one_used_longest_ago_goes_and_none_in_use(vlm):
    kept, claims = prefixes(vlm, 1000, 2)

    def again(i):
        claim = Claim(claims[i].key, claims[i].length)
        return claim if kept.settled(claim) and claim.held else kept.release(claim)

    def made():
        return Prefix(embeds=np.zeros(1000, np.uint8))

    kept.keep(claims[0], made())
    kept.keep(claims[1], made())
    held = again(0)
    assert held is not None and kept.use(held).bytes == 1000
    kept.keep(claims[2], made())
    assert again(1) is None and kept.evicted == 1, "0 was used later"
    other = again(2)
    assert other is not None and kept.bytes == 2000
    kept.keep(claims[3], made())
    assert again(3) is None and kept.bytes == 2000, "both are in use: the new one is not kept"
    kept.release(held)
    kept.release(held)
    kept.keep(claims[4], Prefix(embeds=np.zeros(1500, np.uint8)))
    assert again(0) is not None and kept.evicted == 1, (
        "nothing goes for what does not fit after all"
    )
    assert kept.misses == 5 and kept.hits == 1


@pytest.mark.parametrize("ahead", [False, True])
def test_two_threads_ask_about_a_new_picture_at_once(serve, vlm, picture, ran, monkeypatch, ahead):
    scheduler = serve(prefix_mib=8, rows=4, preparing=2, ahead=ahead)
    began, go = threading.Event(), threading.Event()
    vision = vlm.runner.vision

    def slow(*feed):
        began.set()
        assert go.wait(30)
        return vision(*feed)

    monkeypatch.setattr(vlm.runner, "vision", slow)
    answers = {}

    def client(text):
        answers[text] = asked(scheduler, text, picture)[1]

    threads = [threading.Thread(target=client, args=(text,)) for text in QUESTIONS]
    threads[0].start()
    assert began.wait(30)
    for thread in threads[1:]:
        thread.start()
    other = scheduler.submit(ask("Why?", 255 - picture), max_new_tokens=2)
    until(lambda: len(scheduler._prepared) == (2 if ahead else 3))
    go.set()
    for thread in threads:
        thread.join(30)
    assert other.answer and sum(ran["vision"]) == sum(ran["prefill"]) == 2
    assert (scheduler.prefixes.misses, scheduler.prefixes.hits) == (2, 2)
    assert sorted(a.reused_tokens > 0 for a in answers.values()) == [False, True, True]
    for text, answer in answers.items():
        assert answer.token_ids == vlm.generate(ask(text, picture), max_new_tokens=8).token_ids


@pytest.mark.parametrize("end", ["cancelled", "failed", "failed early"])
def test_when_the_first_one_does_not_come_through_the_second_goes(
    serve, gate, vlm, picture, monkeypatch, end
):
    scheduler = serve(prefix_mib=8, rows=1, preparing=1)
    long = scheduler.submit(ask("Why?", 255 - picture), max_new_tokens=9)
    gate.release()  # the rest of its prompt
    until(lambda: scheduler.running)
    owner, name = (vlm.processor, "pixels") if end == "failed early" else (vlm.runner, "prefill")
    left, work = iter([end != "cancelled"]), getattr(owner, name)

    def fails_once(*feed):
        if next(left, False):
            raise LuvcError("no")
        return work(*feed)

    monkeypatch.setattr(owner, name, fails_once)
    tickets = [scheduler.submit(ask(text, picture), max_new_tokens=5) for text in QUESTIONS]
    until(lambda: not scheduler._arrived and not scheduler._preparing)
    if end == "cancelled":
        tickets[0].cancel()
    gate.release(1000)
    assert len(long.answer.token_ids) == 9
    with pytest.raises(
        LuvcError, match="cancelled before it began" if end == "cancelled" else "no"
    ):
        _ = tickets[0].answer
    for text, ticket in zip(QUESTIONS[1:], tickets[1:], strict=True):
        own = vlm.generate(ask(text, picture), max_new_tokens=5)
        assert ticket.answer.token_ids == own.token_ids
    assert [bool(t.answer.reused_tokens) for t in tickets[1:]] == [False, True]
    assert not scheduler.prefixes._made


def test_nothing_is_kept_where_it_is_switched_off(serve, picture, ran):
    scheduler = serve(prefix_mib=0)
    for text in QUESTIONS:
        assert asked(scheduler, text, picture)[1].reused_tokens == 0
    assert len(ran["vision"]) == len(ran["prefill"]) == 3
    kept = scheduler.prefixes
    assert (len(kept), kept.bytes, kept.hits, kept.misses, kept.refusals()) == (0, 0, 0, 0, {})


@pytest.mark.parametrize("why", ["question", "prompt", "memory"])
def test_what_depends_on_the_question_is_never_shared(workshop, serve, picture, ran, vlm, why):
    """The pictures' embeddings do not depend on it and are."""
    (layout,), manifest = vlm.manifest.layouts, vlm.manifest
    if why == "question":
        score = layout.schedule.score.model_copy(update={"question": True})
        schedule = layout.schedule.model_copy(update={"score": score})
        layouts = (layout.model_copy(update={"schedule": schedule}),)
        manifest = manifest.model_copy(update={"layouts": layouts})
    if why == "prompt":
        language = manifest.language.model_copy(update={"whole_prompt": True})
        manifest = manifest.model_copy(update={"language": language})
    other = VLM(replace(vlm.bundle, manifest=manifest), vlm.runner)
    scheduler = serve(other, prefix_mib=8)
    size = manifest.kv_bytes(layout, 0)
    if why == "memory":
        scheduler.prefixes.limit = size - 1000
    reason = {
        "question": "the score spectrum reads the question to choose visual tokens",
        "prompt": "the pictures of this model look at the question behind them",
        "memory": f"they take {size / 2**20:.3g} MiB, and all may take {(size - 1000) / 2**20:.3g} MiB",
    }
    assert scheduler.prefixes.refusals() == {layout.name: reason[why]}
    wanted = [vlm.generate(ask(t, picture), max_new_tokens=8).token_ids for t in QUESTIONS]
    for rows in ran.values():
        rows.clear()
    answers = [asked(scheduler, text, picture)[1] for text in QUESTIONS]
    assert [a.token_ids for a in answers] == wanted
    assert [a.reused_tokens for a in answers] == [0, 0, 0]
    assert (len(ran["vision"]), len(ran["prefill"])) == (1, 3)
    crowd = [scheduler.submit(ask("Why?", i), max_new_tokens=8) for i in pictures(picture) * 2]
    assert [crowd[0].answer.token_ids, crowd[3].answer.token_ids] == [wanted[0]] * 2
    assert len({tuple(t.answer.token_ids) for t in crowd}) == 3
    assert sum(ran["vision"]) == 3 or why == "memory", "which has no room for three of them"


def test_a_text_alone_has_no_prefix(serve, workshop):
    scheduler = serve(workshop.vlm("qwen2-text"), prefix_mib=8)
    for _ in range(2):
        assert asked(scheduler, "Why?")[1].reused_tokens == 0
    assert len(scheduler.prefixes) == scheduler.prefixes.misses == 0
