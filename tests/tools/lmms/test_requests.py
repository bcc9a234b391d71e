"""lmms-eval's requests in the runtime's words, without lmms-eval."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence

import pytest

from luvc.engines.sampling import Sampling
from luvc.errors import LuvcError
from luvc.tools.lmms.requests import batches, conversation, left_out, sampling_options

from ...conftest import ask
from ...sources import ROOT

OWN = Sampling(max_new_tokens=77, do_sample=True, temperature=0.6, top_p=0.9, stop=("<end>",))


def sampling(**settings) -> Sampling:
    """What a bundle, which samples by itself, does with a task's settings."""
    return OWN.override(**sampling_options(settings, OWN.stop))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_sample": False, "until": None},
        {"temperature": 0, "do_sample": False, "top_p": 1.0, "num_beams": 1},
        {"temperature": 0.0, "do_sample": True, "top_p": 0},  # a temperature of 0 wins
        {"temperature": 0.7, "do_sample": False, "top_k": None},
        {"top_p": 0.9},
    ],
)
def test_it_is_greedy_unless_sampling_is_asked_for(settings):
    found = sampling(**settings)
    assert not found.do_sample and found.max_new_tokens == 77 and found.stop == ("<end>",)


@pytest.mark.parametrize(
    ("settings", "temperature", "top_p", "top_k"),
    [
        ({"temperature": 0.2}, 0.2, 0.9, 50),
        ({"do_sample": True}, 0.6, 0.9, 50),
        ({"do_sample": True, "temperature": 1.0, "top_p": 0.5, "top_k": 7}, 1.0, 0.5, 7),
    ],
)
def test_sampling(settings, temperature, top_p, top_k):
    found = sampling(seed=3, **settings)
    assert found.do_sample and found.seed == 3
    assert (found.temperature, found.top_p, found.top_k) == (temperature, top_p, top_k)


def test_lengths_and_stop_texts():
    assert sampling(max_new_tokens=16, until="\n\n").max_new_tokens == 16
    assert sampling(until="\n\n").stop == ("<end>", "\n\n")
    assert sampling(until=["ASSISTANT:", "Q"]).stop == ("<end>", "ASSISTANT:", "Q")
    assert sampling_options({}, longest=9).get("max_new_tokens") == 9
    assert sampling_options({"max_new_tokens": 5}, longest=9).get("max_new_tokens") == 5


def test_what_would_choose_other_tokens_is_refused_and_the_rest_named():
    with pytest.raises(LuvcError, match="num_beams=4 choose tokens in a way"):
        sampling_options({"num_beams": 4, "temperature": 0})
    settings = {"image_aspect_ratio": "original", "num_beams": 1, "until": [], "top_p": None}
    sampling_options(settings)
    assert left_out(settings) == {"image_aspect_ratio": "original"}


def shown(messages: Sequence[Mapping]) -> list[str]:
    """Texts and pictures of one message in their order."""
    (message,) = messages
    return [part.get("text") or part["image"] for part in message["content"]]


def parts(*content: str) -> list[dict]:
    """A message as lmms-eval has it; what ends in .png is a picture."""
    found = [
        {"type": "image", "url": c} if c.endswith(".png") else {"type": "text", "text": c}
        for c in content
    ]
    return [{"role": "user", "content": found}]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["a.png", "Why?"], ["a.png", "Why?"]),
        (["a.png", "b.png", "Why?"], ["a.png", "b.png", "Why?"]),
        (["First", "a.png", "then", "b.png"], ["First", "a.png", "then", "b.png"]),
        (["a.png", "Question: <image>\nWhy?"], ["Question: ", "a.png", "\nWhy?"]),
        (["a.png", "b.png", "<image> or <image>?"], ["a.png", " or ", "b.png", "?"]),
        (["a.png", "<image> or <image>?"], ["a.png", "<image> or <image>?"]),  # not as many
        (["What is <image>?"], ["What is <image>?"]),
    ],
)
def test_pictures_stand_where_the_text_marks_them(given, wanted):
    assert shown(conversation(parts(*given))) == wanted


def test_systems_texts_and_what_is_no_picture():
    plain = [{"role": "system", "content": "Be brief."}, *parts("Why?")]
    found = conversation(plain)
    assert found[0] == {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    for kind in ("video", "audio"):
        message = {"role": "user", "content": [{"type": kind, "url": "a.mp4"}]}
        with pytest.raises(LuvcError, match=f"a part of type '{kind}'; bundles are asked about"):
            conversation([message])


def test_batches_hold_equal_settings():
    settings = [{"a": 1}, {"a": 2, "b": 0}, {"a": 1}, {"b": 0, "a": 2}, {"a": 1}]
    assert list(batches(settings, 2)) == [[0, 2], [4], [1, 3]]
    assert sorted(map(tuple, batches(settings, 1))) == [(n,) for n in range(5)]


def test_a_bundle_answers_it_as_it_is_asked_directly(workshop, picture):
    vlm = workshop.vlm("qwen2")
    direct = vlm.generate(ask("Why?", picture), max_new_tokens=6, temperature=0)
    message = {"type": "image", "url": picture}, {"type": "text", "text": "Why?"}
    options = sampling_options({"max_new_tokens": 6, "until": [direct.text[-2:]]})
    answer = vlm.generate(conversation([{"role": "user", "content": message}]), **options)
    assert answer.text == direct.text[: direct.text.find(direct.text[-2:])]
    assert len(answer.text) < len(direct.text)


def test_the_entry_point_names_what_is_there_and_asks_for_nothing():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["lmms_eval.models"] == {
        "luvc": "luvc.tools.lmms.plugin:manifest"
    }
    classes = ast.walk(ast.parse((ROOT / "tools" / "lmms" / "model.py").read_text()))
    assert "Luvc" in {node.name for node in classes if isinstance(node, ast.ClassDef)}
    code = (
        "import sys, luvc.tools.lmms.plugin, luvc.tools.lmms.requests as r; assert callable(r.batches); "
        "print([m for m in sys.modules if m.startswith('lmms_eval')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"
