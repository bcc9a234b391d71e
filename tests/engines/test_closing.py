"""What a closed model gives back, and what it says from then on."""

import gc
import threading
import time
import weakref

import pytest

from luvc.engines import VLM
from luvc.engines.serving import Limits, Scheduler
from luvc.errors import LuvcError

from ..conftest import ask


def test_close_gives_sessions_weights_and_caches_back(workshop, picture):
    """At once, without the garbage collector, though a chat is still held."""
    gc.disable()
    try:
        vlm = workshop.vlm("qwen2")
        chat = vlm.chat(max_new_tokens=4)
        chat.ask("Why?", [picture])
        vlm.generate([ask("Why?", picture)] * 2, max_new_tokens=2)  # a session of its own
        held = [weakref.ref(s) for s in vlm.runner._sessions.values()]
        weights = list(vlm.runner._weights._files.values())
        held += [weakref.ref(w) for w in weights]
        held += [weakref.ref(array) for array in chat._rows.caches.host.values()]
        del weights
        assert len(held) > 5 and all(h() is not None for h in held)
        vlm.close()
        assert not any(h() is not None for h in held)
    finally:
        gc.enable()


def test_a_closed_model_says_so(workshop, picture):
    with workshop.vlm("qwen2") as vlm:
        chat = vlm.chat(max_new_tokens=4)
        stream = vlm.generate(ask("Why?", picture), stream=True)
        next(stream)
        layout = vlm.manifest.layouts[0]
    vlm.close()
    for asked in (
        lambda: vlm.generate(ask("Why?", picture)),
        vlm.chat,
        lambda: chat.ask("Why?", [picture]),
        lambda: stream.answer,
        lambda: vlm.runner.prepare(layout),
        lambda: vlm.runner.new_caches(layout, 1),
        lambda: Scheduler(vlm, Limits(rows=1)),
    ):
        with pytest.raises(LuvcError, match=r"the model is closed.*: load the bundle again"):
            asked()


def test_a_model_is_closed_under_a_running_answer(workshop, picture):
    """The run under way ends on memory that is still there; the next one is refused."""
    vlm, said = workshop.vlm("qwen2"), []

    def answer():
        with pytest.raises(LuvcError) as refused:
            while True:
                vlm.generate(ask("Why?", picture), max_new_tokens=40)
        said.append(str(refused.value))

    threads = [threading.Thread(target=answer) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    vlm.close()
    for thread in threads:
        thread.join()
    assert len(said) == 2 and all("the model is closed" in text for text in said)


def test_a_model_that_cannot_be_prepared_is_closed(workshop, monkeypatch):
    from luvc.engines.backends.ort.runner import OrtRunner

    made = []

    def fail(runner, layout):
        made.append(runner)
        return 1 / 0

    monkeypatch.setattr(OrtRunner, "prepare", fail)
    with pytest.raises(ZeroDivisionError):
        VLM.load(workshop.bundle("qwen2").path, backend="ort", threads=1)
    (runner,) = made
    with pytest.raises(LuvcError, match="the model is closed"):
        runner.session("any graph")


def test_a_closed_scheduler_holds_nothing_and_closes_once(workshop, picture):
    with workshop.vlm("qwen2") as vlm:
        with Scheduler(vlm, Limits(rows=2)) as scheduler:
            assert scheduler.submit(ask("Why?", picture), conversation="a", max_new_tokens=3).answer
            held = [weakref.ref(caches) for caches in vlm.runner._made]
            assert held and scheduler.conversations.bytes
        gc.collect()
        assert not any(h() is not None for h in held) and not scheduler.conversations.bytes
        failed = scheduler.counters.failed
        scheduler.close()
        assert scheduler.counters.failed == failed
        assert vlm.generate(ask("Why?", picture), max_new_tokens=2).text is not None
