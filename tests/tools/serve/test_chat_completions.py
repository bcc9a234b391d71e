"""OpenAI's own client against the server; answers are those of `VLM.generate`."""

import base64
import io
import json
import re
import socket
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import openai
import pytest
from PIL import Image

from luvc.engines import VLM

from .conftest import KEY, serving

TEXT = "Which colour?"


def png(image) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def url_of(image) -> str:
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def asking(*urls: str, text: str = TEXT) -> list:
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]


@pytest.fixture(scope="module")
def wanted(bundle, picture):
    """What the bundle itself answers."""
    with VLM.load(bundle, threads=1) as vlm:
        part = {"type": "image", "image": picture}
        turns = [{"role": "user", "content": [part, {"type": "text", "text": TEXT}]}]
        yield vlm.generate(turns, max_new_tokens=12, temperature=0)


def create(client, messages, **options):
    return client.chat.completions.create(
        model="tiny", messages=messages, **{"max_tokens": 12, "temperature": 0} | options
    )


def test_a_picture_is_answered_as_by_the_bundle(client, picture, wanted):
    found = create(client, asking(url_of(picture)))
    (choice,) = found.choices
    assert choice.message.content == wanted.text and choice.finish_reason in ("length", "stop")
    assert found.usage.completion_tokens == len(wanted.token_ids)
    assert found.usage.prompt_tokens == wanted.prompt_tokens + wanted.visual_tokens
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    details = found.usage.prompt_tokens_details
    assert details.visual_tokens == wanted.visual_tokens and details.cached_tokens == 0


def test_a_text_alone_is_answered(client, bundle):
    with VLM.load(bundle, threads=1) as vlm:
        turns = [{"role": "user", "content": TEXT}]
        answer = vlm.generate(turns, max_new_tokens=12, temperature=0)
    found = create(client, turns)
    assert found.choices[0].message.content == answer.text
    assert found.usage.prompt_tokens == answer.prompt_tokens


def test_a_stream_is_the_same_answer_in_pieces(client, picture, wanted):
    chunks = list(
        create(
            client,
            asking(url_of(picture)),
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    *said, last = chunks
    assert said[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in said) == wanted.text
    assert [c.choices[0].finish_reason for c in said][-1] in ("length", "stop")
    assert not last.choices and last.usage.completion_tokens == len(wanted.token_ids)
    assert len({c.id for c in chunks}) == 1


def test_seed_and_stop_are_the_bundles_own(client, picture, bundle, wanted):
    drawn = [create(client, asking(url_of(picture)), temperature=1.5, seed=s) for s in (3, 3, 4)]
    texts = [found.choices[0].message.content for found in drawn]
    assert texts[0] == texts[1] != texts[2]
    stop = wanted.text[2:4]
    found = create(client, asking(url_of(picture)), stop=stop).choices[0]
    assert found.message.content == wanted.text[: wanted.text.index(stop)]
    assert found.finish_reason == "stop"


def test_two_pictures(workshop, picture):
    bundle = workshop.bundle("qwen2-layouts", 1).path
    shown = [picture, 255 - picture]
    with VLM.load(bundle, threads=1) as vlm:
        parts = [{"type": "image", "image": image} for image in shown]
        turns = [{"role": "user", "content": [*parts, {"type": "text", "text": TEXT}]}]
        answer = vlm.generate(turns, max_new_tokens=8, temperature=0)
    with serving(bundle) as (url, _), openai.OpenAI(base_url=f"{url}/v1", api_key=KEY) as client:
        found = create(client, asking(*map(url_of, shown)), max_tokens=8)
        assert found.choices[0].message.content == answer.text
        with pytest.raises(openai.BadRequestError, match="3 images, this model takes 2"):
            create(client, asking(*[url_of(picture)] * 3))


def test_many_clients_at_once(client, picture, wanted):
    def one(number: int) -> str:
        return create(client, asking(url_of(picture))).choices[0].message.content

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, range(16))) == {wanted.text}


WRONG = [
    ({"n": 2}, "n of 2 is not supported"),
    ({"logprobs": True}, "logprobs of True"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools of"),
    ({"frequency_penalty": 0.5}, "frequency_penalty"),
    ({"temperature": 3}, "temperature: .*less than or equal to 2"),
    ({"max_tokens": 0}, "max_new_tokens"),
    ({"top_p": 7}, "top_p"),
    ({"stop": ["a"] * 99}, "stop"),
    ({"extra_body": {"minimum": 1}}, "unknown parameter minimum"),
    ({"extra_body": {"layout": "none"}}, "no layout 'none'"),
    ({"stream_options": {"include_usage": True}}, "stream_options are of streams"),
    ({"max_completion_tokens": 3}, "max_tokens and max_completion_tokens differ"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_what_it_does_not_take_is_a_400(client, options, message):
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        create(client, asking(), **options)
    assert caught.value.type == "invalid_request_error"


PARTS = [
    ("file:///etc/passwd", "this server fetches none"),
    ("http://127.0.0.1:1/a.png", "this server fetches none"),
    ("/etc/passwd", "the image is not one"),
    ("data:image/png;base64,!", "not base64"),
    ("data:image/png;base64,aGVsbG8=", "the image is not one"),
]


@pytest.mark.parametrize(("url", "message"), PARTS)
@pytest.mark.parametrize("stream", [False, True])
def test_what_no_picture_is_is_refused(client, url, message, stream):
    with pytest.raises(openai.BadRequestError, match=message):
        create(client, asking(url), stream=stream)


def test_a_part_that_would_be_read_from_a_path_is_refused(client):
    for part in ({"type": "video", "video": "/tmp"}, {"type": "image", "image": "/etc/passwd"}):
        with pytest.raises(openai.BadRequestError):
            create(client, [{"role": "user", "content": [part]}])


def test_another_model_and_key_and_address(client, server):
    with pytest.raises(openai.NotFoundError, match="only 'tiny'") as caught:
        client.chat.completions.create(model="other", messages=asking())
    assert caught.value.code == "model_not_found"
    with openai.OpenAI(base_url=f"{server[0]}/v1", api_key="wrong", max_retries=0) as other:
        with pytest.raises(openai.AuthenticationError, match="send the API key"):
            create(other, asking())
        with pytest.raises(openai.AuthenticationError):
            other.models.list()
    with pytest.raises(openai.NotFoundError, match="/v1/embeddings"):
        client.embeddings.create(model="tiny", input="a")


def test_models_and_health_and_metrics(client, server, picture):
    assert [m.id for m in client.models.list()] == ["tiny"]
    with urllib.request.urlopen(f"{server[0]}/health") as reply:
        assert json.load(reply) == {"status": "ok"}
    create(client, asking(url_of(picture)))
    with urllib.request.urlopen(f"{server[0]}/metrics") as reply:
        text = reply.read().decode()
    values = dict(re.findall(r"^(luvc_\S+) (\S+)$", text, re.M))
    assert float(values['luvc_requests_total{status="200"}']) >= 1
    kinds = {k: float(values[f'luvc_tokens_total{{kind="{k}"}}']) for k in ("visual", "completion")}
    assert kinds["visual"] > 0 < kinds["completion"]
    assert float(values['luvc_tokens_total{kind="visual_dropped"}']) > 0
    assert float(values["luvc_first_token_seconds_count"]) >= 1
    assert values["luvc_running"] == "0.0"


def raw(server, body: bytes, headers: str = "", path: str = "/v1/chat/completions") -> bytes:
    """What the server says to bytes on a socket."""
    host, port = server[0].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n{headers}"
        connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
        said = b""
        while chunk := connection.recv(65536):
            said += chunk
    return said


def test_bodies_that_are_none(server, client, picture, wanted):
    for body in (b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"model": "tiny", "messages": 3}'):
        said = raw(server, body, f"Content-Length: {len(body)}\r\n")
        assert said.startswith(b"HTTP/1.1 400") and b'"error":{"message"' in said
    large = b"a" * (3 << 20)
    assert raw(server, large, f"Content-Length: {len(large)}\r\n").startswith(b"HTTP/1.1 413")
    assert create(client, asking(url_of(picture))).choices[0].message.content == wanted.text


def test_a_body_that_does_not_come(bundle):
    with serving(bundle, body_seconds=0.3) as server:
        said = raw(server, b'{"model"', "Content-Length: 1000\r\n")
    assert said.startswith(b"HTTP/1.1 408") and b"did not come within 0.3 seconds" in said


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_row(server, picture, stream):
    url, scheduler = server
    body = {"model": "tiny", "messages": asking(url_of(picture)), "max_tokens": 4000}
    data = json.dumps(body | {"stream": stream, "stop": None}).encode()
    host, port = url.removeprefix("http://").split(":")
    before = scheduler.counters.cancelled
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        if stream:
            connection.recv(100)
    until = time.monotonic() + 20
    while scheduler.running or scheduler.waiting:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert scheduler.counters.cancelled >= before


def test_a_full_queue_is_a_429(bundle, picture):
    from luvc.engines.serving import Limits

    with serving(bundle, Limits(rows=1, waiting=1)) as (url, _):
        options = {"base_url": f"{url}/v1", "api_key": KEY, "max_retries": 0}
        with openai.OpenAI(**options) as client, ThreadPoolExecutor(12) as pool:
            work = [
                pool.submit(create, client, asking(url_of(picture)), max_tokens=50)
                for _ in range(12)
            ]
            ended = [w.exception() for w in work]
    assert any(isinstance(e, openai.RateLimitError) for e in ended) and None in ended


def test_a_listed_host_is_asked_and_no_further(bundle, picture, wanted):
    class Pictures(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/a.png")
                self.end_headers()
                return
            data = png(picture) if self.path == "/a.png" else bytes(3 << 20)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Pictures) as pictures:
        threading.Thread(target=pictures.serve_forever, daemon=True).start()
        here = f"127.0.0.1:{pictures.server_port}"
        with serving(bundle, image_hosts=(here,)) as (url, _):
            options = {"base_url": f"{url}/v1", "api_key": KEY, "max_retries": 0}
            with openai.OpenAI(**options) as client:
                found = create(client, asking(f"http://{here}/a.png"))
                assert found.choices[0].message.content == wanted.text
                for path, message in (("moved", "cannot be fetched"), ("large", "more than 1 MiB")):
                    with pytest.raises(openai.BadRequestError, match=message):
                        create(client, asking(f"http://{here}/{path}"))
                for other in (
                    "http://localhost:1/a",
                    "http://a@127.0.0.1/",
                    "http://[",
                    "file:///a",
                ):
                    with pytest.raises(
                        openai.BadRequestError, match=r"--image-host|is none|fetches"
                    ):
                        create(client, asking(other))
        pictures.shutdown()


def test_a_browsers_page_may_ask_where_it_is_listed(bundle):
    with serving(bundle, origins=("https://page.example",)) as (url, _):
        headers = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
        request = urllib.request.Request(
            f"{url}/v1/chat/completions", headers=headers, method="OPTIONS"
        )
        with urllib.request.urlopen(request) as reply:
            assert reply.headers["Access-Control-Allow-Origin"] == "https://page.example"


def test_a_fault_of_ours_is_a_500_without_its_trace(bundle, picture, monkeypatch):
    with serving(bundle) as (url, scheduler):

        def broken(*_, **__):
            raise KeyError("the layer's own secret")

        monkeypatch.setattr(scheduler, "submit", broken)
        with (
            openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client,
            pytest.raises(openai.InternalServerError, match="internal error: KeyError") as caught,
        ):
            create(client, asking(url_of(picture)))
        assert "secret" not in str(caught.value)
