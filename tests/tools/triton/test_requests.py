"""What a client may send, and what it becomes."""

import base64
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from luvc.errors import LuvcError
from luvc.tools.client_messages import Bounds
from luvc.tools.triton import requests

pytest.importorskip("tritonclient.grpc")

from luvc.tools.triton import client
from luvc.tools.triton.config import INPUTS


def png(width: int = 8, height: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


def parse(bounds: Bounds | None = None, **fields) -> requests.Asked:
    arrays = {}
    for name, value in fields.items():
        values = value if isinstance(value, list) else [value]
        texts = isinstance(values[0], (str, bytes))
        values = [v.encode() if isinstance(v, str) else v for v in values]
        arrays[name] = np.array(values, object if texts else None)
    return requests.read(arrays.get, bounds or Bounds(), images=3)


def test_a_request_of_everything():
    data = base64.b64encode(png()).decode()
    asked = parse(
        text_input="Why?",
        image=[png(), data, f"data:image/png;base64,{data}"],
        max_tokens=3,
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        repetition_penalty=1.5,
        seed=7,
        stop=["a", "b"],
        session="s",
        stream=True,
    )
    assert asked.options == {
        "max_new_tokens": 3,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 4,
        "repetition_penalty": 1.5,
        "seed": 7,
        "stop": ("a", "b"),
    }
    assert asked.session == "s" and asked.stream is True
    kinds = [part["type"] for part in asked.messages[0]["content"]]
    assert kinds == ["image", "image", "image", "text"]


def test_a_ratio_or_image_tokens_are_passed_on():
    assert parse(text_input="Why?", ratio=2.5).options == {"ratio": 2.5}
    assert parse(text_input="Why?", image_tokens=64).options == {"image_tokens": 64}


def test_base64_may_be_broken_into_lines():
    lines = base64.encodebytes(png(300, 200)).decode()
    assert lines.count("\n") > 1
    for data in (lines, lines.replace("\n", "\r\n"), f"data:image/png;base64,{lines}"):
        asked = parse(text_input="Why?", image=data)
        assert asked.messages[0]["content"][0]["image"].size == (300, 200)


def test_pictures_go_where_messages_name_them():
    text = {"type": "text", "text": "Why?"}
    messages = [{"role": "user", "content": [{"type": "image"}, text, {"type": "image"}]}]
    asked = parse(messages=json.dumps(messages), image=[png(8, 8), png(9, 8)])
    content = asked.messages[0]["content"]
    assert [p["image"].width for p in content if p["type"] == "image"] == [8, 9]
    with pytest.raises(LuvcError, match="3 images were sent, messages have places for 2"):
        parse(messages=json.dumps(messages), image=[png()] * 3)
    with pytest.raises(LuvcError, match="more image parts than images"):
        parse(messages=json.dumps(messages), image=[png()])


@pytest.mark.parametrize("key", ["image", "path", "url", "image_url"])
@pytest.mark.parametrize("form", ["{}", "file://{}", "data:{}", "data:image/png,{}", "http://x{}"])
def test_texts_are_never_paths(tmp_path, key, form):
    """Not even where a picture lies that the server could read."""
    path = tmp_path / "photo.png"
    path.write_bytes(png())
    source = form.format(path)
    for value in (source, {"url": source}):
        part = {"type": key if key == "image_url" else "image", key: value}
        with pytest.raises(LuvcError, match=r"no known format|base64"):
            parse(messages=json.dumps([{"role": "user", "content": [part]}]))
    with pytest.raises(LuvcError, match="no known format"):
        parse(text_input="Why?", image=source)


def test_a_picture_is_a_text():
    part = {"type": "image", "image": 5}
    with pytest.raises(LuvcError, match="is a base64 string"):
        parse(messages=json.dumps([{"role": "user", "content": [part]}]))


@pytest.mark.parametrize("kind", ["video", "audio", None])
@pytest.mark.parametrize("source", ["/etc", ["/etc/hosts"]])
def test_no_other_part_is_handed_on(kind, source):
    """The processor opens the frames of a video from paths."""
    part = {"type": kind, str(kind): source}
    with pytest.raises(LuvcError, match="is of type 'text', 'image' or 'image_url'"):
        parse(messages=json.dumps([{"role": "user", "content": [part]}]))


def test_bounds_of_pictures():
    bounds = Bounds(image_mib=1, megapixels=1)
    with pytest.raises(LuvcError, match="the limit is 1 MiB"):
        parse(bounds, text_input="Why?", image=bytes(2 << 20))
    with pytest.raises(LuvcError, match="1100x1000 pixels, the limit is 1 megapixels"):
        parse(bounds, text_input="Why?", image=png(1100, 1000))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either text_input or messages"),
        ({"text_input": "a", "messages": "[]"}, "either text_input or messages"),
        ({"text_input": b"\xff"}, "not UTF-8"),
        ({"messages": '{"role": "user"}'}, "JSON list"),
    ],
)
def test_what_cannot_be_read(fields, message):
    with pytest.raises(LuvcError, match=message):
        parse(**fields)


DEEP = "[" * 100_000
LONE = '[{"role": "user", "content": "\\ud800"}]'


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": DEEP}, "not valid JSON: .*100 deep"),
        ({"messages": DEEP + "]" * 100_000}, "not valid JSON: .*100 deep"),
        ({"text_input": "Why?", "stop": [b"\xff"]}, "stop is not UTF-8"),
        ({"text_input": "Why?", "stop": ["a"] * 1_000_000}, "stop has 1000000 texts, the limit is"),
        ({"text_input": ["Why?", "How?"]}, "text_input has 2 values"),
        ({"text_input": "Why?", "temperature": [0.5, 1.0]}, "temperature has 2 values"),
        ({"text_input": 7}, "text_input must be of the type BYTES"),
        ({"text_input": "Why?", "image": [png()] * 4}, "has 4 images, this model takes 3"),
        ({"text_input": "Why?", "image": [b""] * 100_000}, "has 100000 images"),
        ({"text_input": "Why?", "image": png(1, 65_536)}, "65535 pixels a side"),
        ({"text_input": "Why?", "image": "QUJD!"}, "not base64: b'!' .* no known format"),
    ],
)
def test_what_would_cost_or_fail_later_is_refused(fields, message):
    with pytest.raises(LuvcError, match=message):
        parse(**fields)


@pytest.mark.parametrize("name", [n for n, *_ in INPUTS])
def test_empty_tensors(name):
    """A picture or a stop text fewer, or a refusal: never an IndexError."""
    arrays = {"text_input": np.array([b"Why?"], object), name: np.zeros((1, 0), np.float32)}
    if name in ("image", "stop", "session", "layout", "messages"):
        assert requests.read(arrays.get, Bounds(), 1).messages[0]["role"] == "user"
    else:
        with pytest.raises(LuvcError, match=r"has 0 values|either text_input or messages"):
            requests.read(arrays.get, Bounds(), 1)


def test_pictures_of_messages_are_counted_before_they_are_opened():
    image = {"type": "image", "image": base64.b64encode(png()).decode()}
    turns = [{"role": "user", "content": [image] * 2}] * 2
    with pytest.raises(LuvcError, match="has 4 images, this model takes 3"):
        parse(messages=json.dumps(turns))


def test_half_a_surrogate_in_messages_is_the_processors_to_refuse():
    from luvc.engines.prompt.messages import read_messages

    with pytest.raises(LuvcError, match="not valid Unicode: half a surrogate pair at character 0"):
        read_messages(parse(messages=LONE).messages)


def test_the_client_sends_what_the_model_takes(monkeypatch):
    kinds = {n: kind.removeprefix("TYPE_").replace("STRING", "BYTES") for n, kind, _ in INPUTS}
    assert set(requests.OPTIONS) < set(kinds)
    asked = {}
    line = ("a question", "--top-k", "4", "--repetition-penalty", "1.5", "--max-tokens", "3")
    monkeypatch.setattr(sys, "argv", ["client.py", *line])
    monkeypatch.setattr(client, "ask", lambda server, fields: asked.update(fields))
    client.main()
    sent = {tensor.name(): tensor.datatype() for tensor in client.tensors(asked)}
    assert set(sent) == {"text_input", "stream", "top_k", "repetition_penalty", "max_tokens"}
    assert sent.items() <= kinds.items()
    assert all(kinds[name] == kind for name, (kind, _) in client.TYPES.items())
