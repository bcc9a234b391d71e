"""Chats: a turn that continues on the caches, and one that must run afresh."""

import pytest

from luvc.engines.decoding import Rows
from luvc.errors import LuvcError

from ..conftest import ask


def test_a_second_turn_equals_a_fresh_prefill(workshop, picture):
    """It must: the image is in the first turn and the template only appends (chat.py)."""
    vlm = workshop.vlm("qwen2")
    chat = vlm.chat(max_new_tokens=6)
    first = chat.ask("Why?", images=[picture])
    cached = list(chat.history.cached)
    second = chat.ask("And the colours?", stream=False)
    assert first.reused_tokens == 0 and second.reused_tokens == len(cached)
    conversation = chat.history.cached[
        : len(chat.history.cached) - 5
    ]  # without the answer's fed tokens
    layout = vlm.manifest.layouts[0]
    embeds, _ = vlm.embed([vlm.processor.prompt(ask("Why?", picture))])
    rows = Rows(vlm.runner, vlm.manifest, layout, 1)
    logits = rows.prefill([conversation], embeds).logits
    tokens = []
    for _ in range(6):
        tokens.append(int(logits[0].argmax()))
        logits = rows.step([tokens[-1:]])
    assert second.token_ids == tokens


def test_a_chat_runs_only_the_new_tokens(workshop, picture, monkeypatch):
    vlm = workshop.vlm("qwen2")
    chat = vlm.chat(max_new_tokens=4)
    chat.ask("Why?", images=[picture])
    monkeypatch.setattr(
        vlm.runner, "vision", lambda *a: pytest.fail("the image is compressed once")
    )
    monkeypatch.setattr(vlm.runner, "prefill", lambda *a: pytest.fail("the caches are reused"))
    answer = chat.ask("And now?")
    assert answer.reused_tokens > vlm.manifest.layouts[0].visual_tokens
    assert [m["role"] for m in chat.messages] == ["user", "assistant"] * 2


def test_a_template_that_rewrites_history_runs_afresh(workshop, picture):
    vlm = workshop.vlm("qwen2")
    chat = vlm.chat(max_new_tokens=4)
    chat.ask("Why?", images=[picture])
    template, ends = vlm.processor.tokenizer.chat_template, "{%- endfor -%}{%- endif -%}"
    marked = ends + "{%- if not loop.last -%}{{- '!' -}}{%- endif -%}"
    vlm.processor.tokenizer.chat_template = template.replace(ends, marked, 1)
    answer = chat.ask("And now?")
    assert answer.reused_tokens == 0


def test_a_stop_text_is_not_continued_from_the_caches(workshop, picture):
    """The caches hold the stop text, the conversation does not: the second turn runs afresh."""
    vlm = workshop.vlm("qwen2")
    text = vlm.generate(ask("Why?", picture), max_new_tokens=20).text
    chat = vlm.chat(max_new_tokens=20, stop=text[10:13])
    first = chat.ask("Why?", images=[picture])
    assert first.finish_reason == "stop"
    second = chat.ask("And?")
    assert second.reused_tokens == 0
    messages = [*chat.messages[:2], {"role": "user", "content": "And?"}]
    fresh = vlm.generate(messages, max_new_tokens=20, stop=text[10:13])
    assert fresh.token_ids == second.token_ids


def test_a_failed_question_is_not_added(workshop, picture):
    vlm = workshop.vlm("qwen2")
    chat = vlm.chat(max_new_tokens=4)
    chat.ask("Why?", images=[picture])
    with pytest.raises(LuvcError, match="2 images"):
        chat.ask("And this?", images=[picture])
    with pytest.raises(LuvcError, match="text tokens"):
        chat.ask("word " * 200)
    assert len(chat.messages) == 2
    assert chat.ask("And now?").reused_tokens > 0


def test_a_chat_goes_on_after_an_interrupted_answer(workshop, picture, monkeypatch):
    """The caches were ahead of the conversation: the next turn must not be run on top of them."""
    vlm = workshop.vlm("qwen2")
    chat = vlm.chat(max_new_tokens=4)
    chat.ask("Why?", images=[picture])
    step, left = vlm.runner.step, iter([True, False])

    def interrupted(*feed):
        if not next(left):
            raise KeyboardInterrupt
        return step(*feed)

    monkeypatch.setattr(vlm.runner, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        chat.ask("What is in the picture?")
    monkeypatch.setattr(vlm.runner, "step", step)
    answer = chat.ask("And the colours?")
    turn = {"role": "user", "content": "And the colours?"}
    fresh = vlm.generate([*chat.messages[:2], turn], max_new_tokens=4)
    assert answer.token_ids == fresh.token_ids and answer.reused_tokens == 0
    assert len(chat.messages) == 4
