"""Processor files of strangers: what is broken in them is told, and nothing large is made of them."""

import json
import shutil

import pytest

from luvc.engines.bundle.folder import Bundle
from luvc.engines.prompt.processing import Processor
from luvc.errors import LuvcError

from ...conftest import ask


@pytest.fixture
def processor(workshop, tmp_path):
    """A bundle's processor whose files a test may change."""
    bundle = workshop.bundle("qwen2")
    shutil.copytree(bundle.processor, tmp_path / "processor")
    return Processor(Bundle(tmp_path, bundle.manifest))


BROKEN = [b"1", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"null", b'{"model": 1}']


@pytest.mark.parametrize("data", BROKEN)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_broken_tokenizer(processor, name, data):
    file = processor.bundle.processor / name
    file.write_bytes(data)
    try:
        assert processor.tokenizer
    except LuvcError as e:
        assert "tokenizer's files cannot be read" in str(e) and "export the bundle again" in str(e)


@pytest.mark.parametrize("data", BROKEN)
def test_a_broken_image_processor(processor, picture, data):
    (processor.bundle.processor / "preprocessor_config.json").write_bytes(data)
    with pytest.raises(LuvcError, match=r"preprocessor_config.json|processor"):
        processor.pixels(processor.prompt(ask("Why?", picture)))


def test_a_template_that_is_no_text(processor):
    (processor.bundle.processor / "chat_template.jinja").write_bytes(b"\xff{{ messages }}")
    with pytest.raises(LuvcError, match=r"tokenizer.s files cannot be read.*utf-8"):
        processor.prepare()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": {"height": 100_000, "width": 100_000}}, "makes pictures of 100000x100000 pixels"),
        ({"image_std": [0.5]}, "refuses pictures"),
        ({"rescale_factor": "much"}, "refuses pictures"),
        ({"size": {"height": "many", "width": 3}}, "processor"),
    ],
)
def test_settings_that_no_picture_survives(processor, picture, change, message):
    file = processor.bundle.processor / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(LuvcError, match=message):
        processor.pixels(processor.prompt(ask("Why?", picture)))
