"""A generated repository on a real Triton server (CPU): what clients see, and what happens to bad ones.

`make .triton/ready` installs the server; LUVC_TRITON names another place, and makes its absence an error.
"""

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from queue import Queue

import numpy as np
import pytest
from PIL import Image

from luvc.engines.bundle.folder import Bundle
from luvc.engines.serving import Limits
from luvc.tools.triton.server import Ports, Server, find_server

from ...conftest import ask
from .test_repository import with_engines

ROOT = Path(__file__).parents[3]
PLACE = Path(os.environ.get("LUVC_TRITON", ROOT / ".triton"))
pytestmark = [
    pytest.mark.xdist_group("triton"),  # one server for all of this file
    pytest.mark.skipif(
        "LUVC_TRITON" not in os.environ and not (PLACE / "ready").exists(),
        reason="no server: make .triton/ready",
    ),
]


def png(array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come about"
        time.sleep(0.05)


TYPES = {
    "text_input": (object, "BYTES"), "stream": (bool, "BOOL"), "max_tokens": (np.int32, "INT32"),
    "temperature": (np.float32, "FP32"), "top_p": (np.float32, "FP32"), "seed": (np.int64, "INT64"),
}  # fmt: skip


class Client:
    """What the tests need of HTTP and gRPC."""

    def __init__(self, ports: Ports):
        self.ports = ports
        self.base = f"http://127.0.0.1:{ports.http}/v2"

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(f"{self.base}/{path}", timeout=20) as r:
            return json.loads(r.read() or "{}")

    def post(self, path: str, body: dict) -> tuple[int, str]:
        request = urllib.request.Request(f"{self.base}/{path}", json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=60) as r:
                return r.status, r.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()

    def generate(self, image: bytes | None = None, **fields) -> dict:
        """One answer over HTTP; an error as {"status", "error"}."""
        if image is not None:
            fields["image"] = base64.b64encode(image).decode()
        status, text = self.post("models/luvc_vlm/generate", fields)
        return json.loads(text) | ({} if status == 200 else {"status": status})

    def stream(self, image: bytes, **fields) -> list[dict]:
        fields |= {"image": base64.b64encode(image).decode(), "stream": True}
        status, text = self.post("models/luvc_vlm/generate_stream", fields)
        assert status == 200, text
        return [json.loads(x.removeprefix("data: ")) for x in text.split("\n\n") if x]

    def alive(self, image: bytes) -> None:
        """The next request works."""
        assert self.generate(image, text_input="Why?", max_tokens=2)["completion_tokens"] == 2

    def metric(self, name: str) -> float:
        url = f"http://127.0.0.1:{self.ports.metrics}/metrics"
        with urllib.request.urlopen(url, timeout=20) as r:
            lines = r.read().decode().splitlines()
        return sum(float(x.split()[-1]) for x in lines if x.startswith(f"{name}{{"))


@contextlib.contextmanager
def grpc_stream(ports: Ports):
    """(send, results): a bidirectional stream; results are (result, error) in order of arrival."""
    import tritonclient.grpc as grpc

    results: Queue = Queue()
    with grpc.InferenceServerClient(f"127.0.0.1:{ports.grpc}") as client:
        client.start_stream(callback=lambda result, error: results.put((result, error)))

        def send(image: bytes, **fields):
            arrays = {"image": (np.array([image], object), "BYTES")}
            for name, value in fields.items():
                dtype, kind = TYPES[name]
                plain = value.encode() if isinstance(value, str) else value
                arrays[name] = (np.array([plain], dtype), kind)
            inputs = []
            for name, (array, kind) in arrays.items():
                inputs.append(grpc.InferInput(name, list(array.shape), kind))
                inputs[-1].set_data_from_numpy(array)
            client.async_stream_infer("luvc_vlm", inputs, enable_empty_final_response=True)

        yield send, results, client
        with contextlib.suppress(Exception):
            client.stop_stream(cancel_requests=True)


@pytest.fixture(scope="module")
def bundle(workshop) -> Bundle:
    return workshop.bundle("qwen2-text")


@pytest.fixture(scope="module")
def vlm(workshop):
    return workshop.vlm("qwen2-text")


@pytest.fixture(scope="module")
def repository(bundle, tmp_path_factory) -> Path:
    from luvc.tools.triton.repository import Bounds, Options, write

    target = tmp_path_factory.mktemp("triton") / "repository"
    write(bundle, target, Options(Limits(rows=6), Bounds(), threads=1))
    return target


@pytest.fixture(scope="module")
def server(repository):
    log = repository.parent / "server.log"
    with Server(find_server(PLACE), repository, Ports.free(), log=log) as running:
        until(lambda: running.exit_code is not None or running.ready(), 60)
        assert running.exit_code is None, running.tail()
        yield running


@pytest.fixture(scope="module")
def client(server):
    return Client(server.ports)


@pytest.fixture(scope="module")
def image(picture) -> bytes:
    return png(picture)


SAMPLED = {"max_tokens": 12, "temperature": 1.5, "top_p": 0.95, "seed": 5}


def own(vlm, text, image, **fields):
    """The runtime's own answer for the fields of a request."""
    fields["max_new_tokens"] = fields.pop("max_tokens")
    return vlm.generate(ask(text, image), **fields)


# ---- answers
@pytest.mark.parametrize("fields", [{"max_tokens": 20}, SAMPLED], ids=["greedy", "sampled"])
def test_answers_are_the_runtimes_own(client, vlm, image, fields):
    expected = own(vlm, "What is it?", image, **fields)
    answer = client.generate(image, text_input="What is it?", **fields)
    assert answer["text_output"] == expected.text
    assert answer["finish_reason"] == expected.finish_reason
    assert answer["prompt_tokens"] == expected.prompt_tokens
    assert answer["visual_tokens"] == expected.visual_tokens
    assert answer["layout"] == expected.layout
    assert answer["completion_tokens"] == len(expected.token_ids)
    assert answer["prefill_ms"] > 0 and answer["vision_ms"] > 0 and answer["pixels_ms"] > 0
    pieces = client.stream(image, text_input="What is it?", **fields)
    assert "".join(p["text_output"] for p in pieces) == expected.text and len(pieces) > 1
    assert pieces[-1]["finish_reason"] == expected.finish_reason
    assert "finish_reason" not in pieces[0]


def test_grpc_streams_the_same(server, vlm, image):
    expected = own(vlm, "Why?", image, **SAMPLED)
    with grpc_stream(server.ports) as (send, results, _):
        send(image, text_input="Why?", stream=True, **SAMPLED)
        pieces = []
        while True:
            result, error = results.get(timeout=30)
            assert error is None
            response = result.get_response()
            if result.as_numpy("text_output") is not None:
                pieces.append(result.as_numpy("text_output").item().decode())
            if response.parameters["triton_final_response"].bool_param:
                break
    assert "".join(pieces) == expected.text and len(pieces) > 1


def test_messages_with_pictures_inside_and_beside(client, vlm, picture, image):
    expected = own(vlm, "Why?", image, max_tokens=8).text
    encoded = base64.b64encode(image).decode()
    text = {"type": "text", "text": "Why?"}
    forms = [
        ([{"type": "image"}, text], image),
        ([text], image),
        ([{"type": "image", "image": encoded}, text], None),
        ([{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}, text], None),
        ("Why?", image),
    ]  # fmt: skip
    for content, beside in forms:
        messages = json.dumps([{"role": "user", "content": content}])
        assert client.generate(beside, messages=messages, max_tokens=8)["text_output"] == expected


def test_a_layout_is_named_and_told(client, bundle, image):
    (layout,) = bundle.manifest.pictured
    answer = client.generate(image, text_input="Why?", layout=layout.name, max_tokens=2)
    assert answer["layout"] == layout.name and answer["notes"] == ""


def test_questions_without_a_picture(client, vlm, image):
    expected = vlm.generate(ask("Why?"), max_new_tokens=12)
    answer = client.generate(text_input="Why?", max_tokens=12)
    assert answer["text_output"] == expected.text and answer["completion_tokens"] == 12
    assert (answer["layout"], answer["visual_tokens"], answer["vision_ms"]) == ("text", 0, 0)
    named = client.generate(image, text_input="Why?", layout="text")
    assert named["status"] == 400 and "1 image, layout text holds 0" in named["error"]


def test_stop_texts(client, vlm, image):
    text = own(vlm, "Why?", image, max_tokens=30).text
    answer = client.generate(image, text_input="Why?", max_tokens=30, stop=text[20:26])
    assert answer["text_output"] == text[: text.index(text[20:26])]
    assert answer["finish_reason"] == "stop"


def test_twelve_clients_are_batched_and_get_their_own_answers(client, vlm, picture):
    pictures = [png(np.roll(picture, 20 * i, axis=1)) for i in range(12)]
    expected = [own(vlm, "Why?", p, max_tokens=10 + i).text for i, p in enumerate(pictures)]

    def stats():
        (found,) = client.get("models/luvc_vision/stats")["model_stats"]
        return found["inference_count"], found["execution_count"]

    def counters():
        """The scheduler's; the server shows them a little later."""
        names = ("prefills", "prefilled_rows", "steps", "stepped_rows")
        last, found = None, []
        while found != last:
            last = found
            time.sleep(0.6)
            found = [client.metric(f"luvc_{n}_total") for n in names]
        return found

    before, (images, runs) = counters(), stats()
    answers: list = [None] * 12

    def one(i):
        answers[i] = client.generate(pictures[i], text_input="Why?", max_tokens=10 + i)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [a["text_output"] for a in answers] == expected
    more_images, more_runs = stats()
    assert more_images - images == 12 and more_runs - runs < 12, "the vision model batches"
    prefills, rows, steps, stepped = (b - a for a, b in zip(before, counters(), strict=True))
    assert prefills < rows == 12, "prompts are run together"
    assert stepped == sum(9 + i for i in range(12)) and steps < 0.7 * stepped, "so are steps"


def test_sessions(client, workshop, image):
    chat = workshop.vlm("qwen2-text").chat(max_new_tokens=5)
    first = client.generate(image, text_input="What is it?", session="s", max_tokens=5)
    assert first["text_output"] == chat.ask("What is it?", [image]).text
    second = client.generate(text_input="And the colours?", session="s", max_tokens=5)
    expected = chat.ask("And the colours?")
    assert second["text_output"] == expected.text
    assert second["reused_tokens"] == expected.reused_tokens > 0 and second["vision_ms"] == 0
    unknown = client.generate(text_input="And?", session="nobody")
    assert unknown["status"] == 400 and "conversation 'nobody' is unknown" in unknown["error"]
    client.alive(image)


# ---- those who leave
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
    fields = {"text_input": "Why?", "max_tokens": 70, "stream": endpoint != "generate",
              "image": base64.b64encode(image).decode()}  # fmt: skip
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


# ---- wrong requests
BAD = {
    "missing input beside an optional one": ({"max_tokens": 4}, "send either text_input or messages"),
    "broken image": ({"text_input": "Why?", "image": b"PNG?"}, "no known format"),
    "truncated image": ({"text_input": "Why?", "image": "half"}, "cannot be read"),
    "100 MB image": ({"text_input": "Why?", "image": "large"}, "the limit is 16 MiB"),
    "prompt too long": ({"text_input": "why " * 300, "image": "good"}, "the bundle holds 96"),
    "top_p": ({"text_input": "Why?", "image": "good", "top_p": 7.0}, "top_p"),
    "a server's file": (
        {"messages": '[{"role": "user", "content": [{"type": "image", "image": "/etc/hosts"}]}]'},
        "no known format",
    ),
    "a server's folder": (
        {"messages": '[{"role": "user", "content": [{"type": "video", "video": "/etc"}]}]'},
        "is of type 'text', 'image' or 'image_url'",
    ),
    "layout": (
        {"text_input": "Why?", "image": "good", "layout": "9x9"}, "there is no layout '9x9' in this bundle"
    ),
    "messages": ({"messages": "{", "image": "good"}, "not valid JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_wrong_requests_get_a_clear_error(client, image, case):
    fields, message = BAD[case]
    data = {"half": image[: len(image) // 2], "good": image, "large": b"\x89PNG" + bytes(100 << 20)}
    source = fields.get("image")
    source = data.get(source, source) if source is not None else None
    answer = client.generate(source, **{k: v for k, v in fields.items() if k != "image"})
    assert answer["status"] == 400 and message in answer["error"], answer
    assert len(answer["error"]) < 400
    client.alive(image)


def test_wrong_shapes_and_types_get_a_clear_error(server, client, image):
    import tritonclient.grpc as grpc

    cases = [
        ([2], np.array([b"a", b"b"], object), "BYTES", "unexpected shape for input 'text_input'"),
        ([1], np.array([3], np.int32), "INT32", "data-type is 'INT32'"),
    ]
    for shape, array, kind, message in cases:
        with grpc_stream(server.ports) as (_, results, stream):
            tensor = grpc.InferInput("text_input", shape, kind)
            tensor.set_data_from_numpy(array)
            stream.async_stream_infer("luvc_vlm", [tensor])
            _, error = results.get(timeout=30)
            assert message in str(error)
    client.alive(image)


# ---- the launcher
@pytest.fixture
def launched(bundle, tmp_path):
    """luvc-serve on a repository for a GPU, as --cpu and in explicit mode -> process, client, folder."""
    from luvc.tools.triton.repository import Bounds, Options, write

    repository = tmp_path / "repository"
    write(with_engines(bundle, "sm90"), repository, Options(Limits(rows=2), Bounds(), threads=1))
    plain = (repository / "luvc_vision" / "config.pbtxt").read_text()
    assert "tensorrt_plan" in plain and "KIND_GPU" in plain
    ports = None
    while ports is None:  # the launcher takes three in a row
        first = Ports.free().http
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + 3):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            ports = Ports(first, first + 1, first + 2)
    log, pid = tmp_path / "server.log", tmp_path / "pid"
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "luvc.tools.triton.serve", repository, "--cpu", "--port",
             str(ports.http), "--server", PLACE, "--log", log, "--pid-file", pid, "--",
             "--model-control-mode=explicit", "--load-model=luvc_vlm", "--load-model=luvc_vision"],
            stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield process, Client(ports), tmp_path
    finally:
        process.terminate()
        process.wait(30)


def answers(client: Client) -> bool:
    try:
        client.get("health/ready")
    except OSError:
        return False
    return True


def test_load_unload_a_killed_process_and_a_clean_stop(launched, image):
    process, client, folder = launched
    until(lambda: answers(client), 60)
    client.alive(image)
    for model in ("luvc_vision", "luvc_vlm"):
        assert client.post(f"repository/models/{model}/unload", {})[0] == 200
        until(lambda m=model: client.post(f"models/{m}/infer", {})[0] != 200)
        refused = client.generate(image, text_input="Why?", max_tokens=2)
        assert refused["status"] >= 400, refused
        assert client.post(f"repository/models/{model}/load", {})[0] == 200
        client.alive(image)
    assert "died" not in (folder / "out").read_text(), "unloading is no death"
    memory = set(Path("/dev/shm").glob("triton_python_backend*"))
    mine = process_children(process.pid)
    # the newest: that of the model unloaded above may still be on its way out
    victim = max(pid for pid in mine if "stub" in mine[pid] and "/luvc_vlm/" in mine[pid])
    os.kill(victim, signal.SIGKILL)
    until(lambda: not answers(client), 10)
    until(lambda: answers(client), 60)
    client.alive(image)
    assert "the process of luvc_vlm has died" in (folder / "out").read_text()
    os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
    assert process.wait(20) == 0, (folder / "out").read_text()
    assert not process_children(process.pid) and not (folder / "pid").exists()
    left = set(Path("/dev/shm").glob("triton_python_backend*")) - memory
    assert not left


def process_children(pid: int) -> dict[int, str]:
    """Commands of all descendants."""
    import psutil

    try:
        return {p.pid: " ".join(p.cmdline()) for p in psutil.Process(pid).children(recursive=True)}
    except psutil.NoSuchProcess:
        return {}
