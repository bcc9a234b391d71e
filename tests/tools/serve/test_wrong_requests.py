"""What the server refuses, and clients that misbehave: always a status in OpenAI's form, and it goes on."""

import json
import socket
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import openai
import pytest

from .conftest import KEY, asking, create, png, serving, url_of

pytestmark = pytest.mark.xdist_group("serve")  # a server of the bundle for each file
WRONG = [
    ({"n": 2}, "n of 2 is not supported"),
    ({"logprobs": True, "stream": True}, "logprobs are told of whole answers"),
    ({"top_logprobs": 2}, "top_logprobs are beside logprobs"),
    (
        {"logprobs": True, "top_logprobs": 21},
        "top_logprobs: Input should be less than or equal to 20",
    ),
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
