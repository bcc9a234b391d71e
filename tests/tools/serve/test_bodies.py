"""What an ingress reads of a body, and how tokens are spelt."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from luvc.tools.serve.app import Service
from luvc.tools.serve.bodies import picture_key

from .conftest import asking


def body(*messages: Any) -> bytes:
    return json.dumps({"messages": list(messages)}).encode()


def test_a_conversation_keeps_the_key_of_its_first_picture():
    first, second = asking("data:,a")[0], asking("data:,b")[0]
    key = picture_key(body(first))
    answer = {"role": "assistant", "content": "Red."}
    called = {"role": "assistant", "tool_calls": []}
    assert key and key == picture_key(body({"role": "system", "content": "Be brief."}, first))
    assert key == picture_key(body(first, answer, second)) == picture_key(body(called, first))
    assert key != picture_key(body(second))


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'{"messages": 3}', b'{"messages": [3]}', body({"content": [3]}),
     body({"role": "user", "content": "no picture"}), body({"content": [{"type": "image_url"}]})],
)  # fmt: skip
def test_what_shows_no_picture_has_no_key(data):
    assert picture_key(data) == ""


def test_tokens_keep_the_blank_before_them():
    """Llama's tokenizer leaves out the first blank of a text: its tokens joined are the text all the same."""
    words = {"\u2581the": 0, "\u2581cat": 1, "s": 2, "<unk>": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    scheduler = SimpleNamespace(vlm=SimpleNamespace(processor=SimpleNamespace(tokenizer=fast)))
    spell = Service._spell.__get__(SimpleNamespace(scheduler=scheduler))
    assert fast.decode([1]) == "cat"
    assert [spell(i) for i in (0, 1, 2)] == [" the", " cat", "s"]
