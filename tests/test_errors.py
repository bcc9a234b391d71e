"""What errors echo is bounded, and no terminal obeys it."""

import pickle

import pytest

from luvc.errors import LONGEST, LuvcError, Mismatch, brief, printable, shown


def test_ordinary_messages_stay_as_they_are():
    for text in ("", "a\nb", "straße 写真 'x' \\ ~", "a" * LONGEST):
        assert str(LuvcError(text)) == printable(text, LONGEST) == text


def test_a_message_is_bounded():
    text = str(LuvcError("x" * 100_000))
    assert len(text) < LONGEST + 100 and text.endswith("... (100000 characters)")


@pytest.mark.parametrize("text", ["\x1b[2J", "\x9b1A", "\r", "\x00", "\u202e", "\udcff", "\x7f"])
def test_what_a_terminal_would_obey_is_spelled_out(text):
    for said in (str(LuvcError(f"a{text}b")), brief(ValueError(f"a{text}b"))):
        assert said.startswith("a") and said.replace("\n", "").isprintable()


def test_it_survives_a_process():
    error = pickle.loads(pickle.dumps(Mismatch("differs\x1b")))
    assert type(error) is Mismatch and str(error) == r"differs\x1b" and error.exit_code == 1


def test_a_value_that_is_nested_without_end_is_shown_by_its_type():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "list nested too deep to be shown"
    assert shown(["a"]) == "['a']" and len(shown("a" * 1000)) == 80
