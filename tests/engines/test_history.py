"""What of a conversation is in its caches, for tokenizers of both kinds: by ids, and by what they say."""

from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from luvc.engines.history import History
from luvc.engines.sampling import Sampling

WORDS = [
    "USER",
    "ASSISTANT",
    ":",
    "▁",
    "▁blue",
    "blue",
    "▁red",
    "▁What",
    "▁And",
    "▁now",
    "?",
    "▁b",
    "lue",
]


def sentencepiece() -> PreTrainedTokenizerFast:
    """A tokenizer that writes blanks as LLaMA's does and takes the first one away again."""
    vocabulary = [
        ("<unk>", 0.0),
        ("</s>", 0.0),
        *((word, -float(n + 1)) for n, word in enumerate(WORDS)),
    ]
    raw = Tokenizer(models.Unigram(vocabulary, 0, byte_fallback=False))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", eos_token="</s>")


class Conversation:
    """A history of one answered turn, without a model.

    Args:
        generated: ids of the answer.
        fed: how many of them are in the caches.
    """

    def __init__(self, generated: list[int], fed: int, text: str | None = None):
        self.tokenizer = sentencepiece()
        language = SimpleNamespace(whole_prompt=False, image_token_id=-1)
        processor: Any = SimpleNamespace(
            tokenizer=self.tokenizer, manifest=SimpleNamespace(language=language)
        )
        self.history = History(processor)
        first = self.prompt("USER: What? ASSISTANT:")
        self.history.begin(first, {})
        said = self.tokenizer.decode(generated, skip_special_tokens=True) if text is None else text
        sampling = Sampling.model_validate({"eos_token_id": self.tokenizer.eos_token_id})
        state: Any = SimpleNamespace(
            ids=generated, sampling=sampling, text=said, tokenizer=self.tokenizer
        )
        self.history.close([], first, state, len(first.input_ids) + fed)

    def prompt(self, text: str) -> Any:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return SimpleNamespace(input_ids=ids, text=text, layout=SimpleNamespace(name="a"))

    def ids(self, *words: str) -> Any:
        return self.tokenizer.convert_tokens_to_ids(list(words))


def begun() -> Conversation:
    return Conversation([], 0)


@pytest.mark.parametrize(
    ("words", "fed"),
    [(("▁blue",), 0), (("▁blue", "</s>"), 1), (("▁b", "lue", "</s>"), 2), (("▁b", "lue"), 1)],
)
def test_an_answer_of_sentencepiece_is_continued(words, fed):
    """By itself the answer is "blue", behind its prompt " blue"; its ids may be unusual ones."""
    found = Conversation(begun().ids(*words), fed)
    assert found.tokenizer.decode(begun().ids(*words), skip_special_tokens=True) == "blue"
    whole = found.prompt("USER: What? ASSISTANT: blue USER: And now? ASSISTANT:")
    new = found.history.continuation(whole, 100)
    assert new, "the caches are used"
    usual = found.ids("▁blue")
    pending = [i for i in found.ids(*words)[fed:] if i != found.tokenizer.eos_token_id]
    start = len(found.prompt("USER: What? ASSISTANT:").input_ids) + len(usual)
    assert new == pending + whole.input_ids[start:], "the rest as the whole conversation has it"


@pytest.mark.parametrize(
    "text",
    [
        "USER: What? ASSISTANT: red USER: And now? ASSISTANT:",  # another answer
        "USER: What? ASSISTANT:blue USER: And now? ASSISTANT:",  # which the caches do not say
        "USER: And? ASSISTANT: blue USER: And now? ASSISTANT:",  # another question
        "USER: What? ASSISTANT:",
        "USER: What?",
    ],
)
def test_what_the_caches_do_not_say_runs_afresh(text):
    found = Conversation(begun().ids("▁blue", "</s>"), 1)
    assert found.history.continuation(found.prompt(text), 100) == []


def test_what_the_answer_left_out_runs_afresh():
    """A stop text was cut off: the caches say "blue?" and the conversation "blue"."""
    found = Conversation(begun().ids("▁blue", "?"), 1, text="blue")
    whole = found.prompt("USER: What? ASSISTANT: blue USER: And now? ASSISTANT:")
    assert found.history.continuation(whole, 100) == []


def test_no_room_runs_afresh():
    found = Conversation(begun().ids("▁blue", "</s>"), 1)
    whole = found.prompt("USER: What? ASSISTANT: blue USER: And now? ASSISTANT:")
    new = found.history.continuation(whole, 100)
    assert found.history.continuation(whole, len(new)) == []
