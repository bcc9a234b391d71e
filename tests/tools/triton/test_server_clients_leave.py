"""What a real server does when its clients leave."""

import base64
import contextlib
import json
import socket

from .real_server import ON_SERVER, Client, grpc_stream, until

pytestmark = ON_SERVER
MANY = (
    100  # requests for 6 rows: seconds of work, of which most is not done when their client leaves
)


def is_free(client: Client) -> bool:
    return client.metric("luvc_running") + client.metric("luvc_waiting") == 0


@contextlib.contextmanager
def given_up(client: Client, image: bytes):
    """What is sent within is given up: not all of it is run, every row is free, the server lives."""
    before = client.metric("luvc_stepped_rows_total")
    yield
    client.alive(image)
    until(lambda: is_free(client))
    assert client.metric("luvc_stepped_rows_total") - before < MANY * 69


@contextlib.contextmanager
def many_connections(client: Client, image: bytes, endpoint: str, count: int = MANY):
    """Requests that are under way, on connections that are closed at the end."""
    fields = {"text_input": "Why?", "max_tokens": 70, "stream": endpoint != "generate"}
    fields["image"] = base64.b64encode(image).decode()
    body = json.dumps(fields).encode()
    head = f"POST /v2/models/luvc_vlm/{endpoint} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
    with contextlib.ExitStack() as stack:
        place = ("127.0.0.1", client.ports.http)
        made = [stack.enter_context(socket.create_connection(place)) for _ in range(count)]
        for connection in made:
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
        yield made[0]


def test_streaming_clients_that_disappear_free_their_rows(client, image):
    cancelled = client.metric("luvc_cancelled_total")
    with given_up(client, image), many_connections(client, image, "generate_stream") as first:
        assert first.recv(1)
    assert client.metric("luvc_cancelled_total") > cancelled


def test_clients_without_a_stream_that_disappear_free_their_rows(client, image):
    """This server does not tell of them, so their answers are made to the end and freed then."""
    with many_connections(client, image, "generate", 20):
        pass
    client.alive(image)
    until(lambda: is_free(client))


def test_cancelled_requests_free_their_rows(server, client, image):
    with given_up(client, image), grpc_stream(server.ports) as (send, results, stream):
        for _ in range(MANY):
            send(image, text_input="Why?", stream=True, max_tokens=70)
        assert results.get(timeout=30)[1] is None
        stream.stop_stream(cancel_requests=True)
