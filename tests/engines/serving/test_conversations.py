"""Kept conversations: continued on their caches, refused, evicted."""

import pytest
from PIL import Image

from luvc.engines.serving import Busy
from luvc.errors import LuvcError

from ...conftest import ask
from .conftest import ALL, pictures, until


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
    scheduler = serve(session_mib=3)
    _ = scheduler.submit(ask("Why?", picture), conversation="s0", max_new_tokens=2).answer
    each = scheduler.conversations.bytes
    assert picture.size < each < picture.size + row, "what is in use of a row is kept"
    fit = 3 * 2**20 // each
    assert 1 < fit < 20
    for i in range(1, fit + 2):
        _ = scheduler.submit(ask("Why?", picture), conversation=f"s{i}", max_new_tokens=2).answer
        assert scheduler.conversations.bytes <= 3 * 2**20
    assert len(scheduler.conversations) == fit and scheduler.conversations.evicted == 2
    with pytest.raises(LuvcError, match="'s0' is unknown"):
        _ = scheduler.submit(ask("And?"), conversation="s0").answer
    assert scheduler.submit(ask("And?"), conversation="s2", max_new_tokens=2).answer.reused_tokens
