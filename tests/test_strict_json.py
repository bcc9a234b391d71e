"""The reader of JSON from outside: what Python's own says, and a bound of depth."""

import json

import pytest

from luvc import strict_json
from luvc.engines.bundle.folder import Bundle
from luvc.engines.bundle.swap import check_target
from luvc.errors import LuvcError


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + closing * depth


def test_it_says_what_pythons_own_reader_says(tmp_path):
    data = {"a": [1, 2.5, None, True, {"ä": "[[[[{{"}], "b": {}}
    for text in (json.dumps(data), json.dumps(data, ensure_ascii=False)):
        assert strict_json.parse(text) == strict_json.parse(text.encode()) == data
        (tmp_path / "a.json").write_text(text, encoding="utf-8")
        assert strict_json.read(tmp_path / "a.json") == data
    assert strict_json.parse(json.dumps("[" * 10_000)) == "[" * 10_000, "brackets in a text"


def test_depth_is_bounded():
    assert strict_json.parse(nested(100)) == json.loads(nested(100))
    for depth in (101, 900, 100_000):
        for text in (nested(depth), nested(depth, '{"a":[', "]}"), "[" * depth):
            with pytest.raises(ValueError, match=r"nested more than 100 deep|Expecting"):
                strict_json.parse(text)


@pytest.mark.parametrize("text", [b"\xff{}", "{", "", b"[1,]"])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError):
        strict_json.parse(text)


def test_a_manifest_that_is_nested_deep(tmp_path):
    (tmp_path / "manifest.json").write_text(nested(100_000))
    with pytest.raises(LuvcError, match=r"not a readable manifest \(.*100 deep"):
        Bundle.load(tmp_path)
    with pytest.raises(LuvcError, match="is not a bundle"):
        check_target(tmp_path)


@pytest.mark.parametrize("text", ["1", "{", nested(100_000), "\udcff"])
def test_a_broken_generation_config(workshop, tmp_path, text):
    import shutil

    from luvc.engines.sampling import GENERATION, generation_config

    bundle = workshop.bundle("qwen2")
    copy = Bundle(tmp_path, bundle.manifest)
    shutil.copytree(bundle.processor, copy.processor)
    (copy.processor / GENERATION).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(LuvcError, match=f"{GENERATION} cannot be read"):
        generation_config(copy)
