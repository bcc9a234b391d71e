"""Chat templates in their published forms: what Hugging Face's own `apply_chat_template` renders."""

from functools import cache

import pytest

from luvc.engines.prompt.chat_template import ChatTemplate
from luvc.engines.prompt.messages import bare, read_messages, with_visuals
from luvc.errors import LuvcError
from luvc.exporter.vision.families import FAMILIES, adapter_class

from ...families.prompts import WORDS, tokenizer
from ...families.templates import BOTH, FORMS

ROLES = ("system", "user", "assistant")
SAID = {"system": "Be brief.", "user": "What colour is it?", "assistant": 'It\'s "red".\nReally.'}


@cache
def tokens(family: str):
    found = tokenizer(family)
    found.chat_template = found.chat_template or adapter_class(family).template
    return found


def content(text: str, form: str):
    return text if form == "text" else [{"type": "text", "text": text}]


def conversation(forms: dict[str, str], image: bool = True) -> list[dict]:
    """Turns of all roles, each with its content in the form named."""
    turns = [{"role": role, "content": content(SAID[role], forms[role])} for role in ROLES]
    if image and forms["user"] == "parts":
        turns[1]["content"].insert(0, {"type": "image"})
    return [*turns, {"role": "user", "content": content("And now?", forms["user"])}]


def hugging_face(found, turns) -> str:
    return found.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_whatever_form_the_caller_has_the_template_gets_one_it_prints(family):
    found = tokens(family)
    published = {role: FORMS.get(family, {}).get(role, BOTH) for role in ROLES}
    for role in ROLES:
        assert set(ChatTemplate(found).forms(role)) == published[role], role
    for system in ("text", "parts"):
        for assistant in ("text", "parts"):
            for user in ("text", "parts"):
                forms = {"system": system, "user": user, "assistant": assistant}
                taken = {r: f if f in published[r] else min(published[r]) for r, f in forms.items()}
                turns = conversation(forms)
                wanted = hugging_face(found, conversation(taken, image=user == "parts"))
                assert ChatTemplate(found).render(turns) == wanted
                assert all(wanted.count(text) == 1 for text in SAID.values())


def test_a_list_for_a_template_of_texts_is_not_printed_as_a_list():
    """The case that was found: GLM-4.1V's turns of the assistant."""
    text = ChatTemplate(tokens("glm4v")).render(conversation(dict.fromkeys(ROLES, "parts")))
    assert "[{" not in text and "<|system|>\nBe brief.<|user|>" in text


def test_parts_that_cannot_be_a_text_are_refused():
    parts = [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]
    turns = [{"role": "system", "content": parts}, {"role": "user", "content": "Why?"}]
    with pytest.raises(LuvcError, match=r"system turn's content as one text, got 2 parts .*join"):
        ChatTemplate(tokens("glm4v")).render(turns)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages | tojson }}", "does not print what a turn of the role 'user' says"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "role 'user'"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "'assistant'"),
        ("{{ 1 / 0 }}", "role 'user'"),
    ],
)
def test_templates_that_print_something_else_are_refused_at_load(template, message):
    found = tokenizer("qwen2_vl")
    found.chat_template = template
    with pytest.raises(LuvcError, match=message):
        ChatTemplate(found).check()


def test_no_turn_vanishes():
    """A role that a template does not know, and a turn in a place that it does not look at."""
    user = {"role": "user", "content": "Why?"}
    tool = {"role": "tool", "content": "42"}
    with pytest.raises(LuvcError, match="role 'tool'"):
        ChatTemplate(tokens("glm4v")).render([user, tool])
    late = [
        user,
        {"role": "assistant", "content": "So."},
        {"role": "system", "content": "Now."},
        user,
    ]
    found = tokenizer("qwen2_vl")
    found.chat_template = (
        "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
        "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    )
    with pytest.raises(LuvcError, match="a text of the 'system' turn"):
        ChatTemplate(found).render(late)


CALL = [{"type": "function", "function": {"name": "look", "arguments": {"where": "left"}}}]
TURNS = {
    "qwen3_vl": [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": None, "tool_calls": CALL},
        {"role": "tool", "content": "Nothing there."},
    ],
    "glm4v": [
        {"role": "user", "content": "Why?", "name": None},
        {"role": "assistant", "content": "So.", "metadata": "thought"},
        {"role": "user", "content": "And?"},
    ],
}


@pytest.mark.parametrize("family", TURNS)
def test_what_a_template_prints_beside_the_content_reaches_it(family):
    turns = TURNS[family]
    text = ChatTemplate(tokens(family)).render(with_visuals(read_messages(turns), bare))
    assert text == hugging_face(tokens(family), turns)
    assert "look" in text or "thought" in text


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        ("qwen3_vl", "name", "Ada"),  # in the template it is a function's
        ("qwen3_vl", "reasoning_content", "Hm."),
        ("qwen2_vl", "tool_calls", CALL),
        ("llava", "metadata", "thought"),
        ("glm4v", "weight", 1),
    ],
)
def test_what_a_template_does_not_print_is_refused(family, key, value):
    role = "assistant" if key in ("tool_calls", "reasoning_content") else "user"
    turn = {"role": role, "content": "So.", key: value}
    before = [{"role": "user", "content": "Why?"}] if role == "assistant" else []
    turns = [*before, turn, *([{"role": "user", "content": "And?"}] if before else [])]
    with pytest.raises(LuvcError, match=f"prints no '{key}' of the {role} turn: leave it out"):
        ChatTemplate(tokens(family)).render(read_messages(turns))


def test_every_family_has_a_template_to_be_tested():
    assert set(WORDS) == set(FAMILIES)
    assert set(FORMS) <= set(FAMILIES)
