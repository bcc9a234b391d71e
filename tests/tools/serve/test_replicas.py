"""The application under Ray Serve: two replicas on this machine, started as its page says."""

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import openai
import pytest

from .conftest import KEY, TEXT, asking, url_of

pytest.importorskip("ray.serve", reason="Ray Serve is not installed: make .venv/replicas")
pytestmark = pytest.mark.slow

PORT = 18423
URL = f"http://127.0.0.1:{PORT}"
SLOW_MACHINE = {  # Ray's own patience is for machines with more than two cores
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "120",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@pytest.fixture(scope="module")
def server(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    arguments = {"bundle": str(bundle), "replicas": 2, "served_model_name": "tiny", "api_key": KEY}
    application = {"import_path": "luvc.tools.serve.replicas:application", "args": arguments}
    config = {"http_options": {"host": "127.0.0.1", "port": PORT}, "applications": [application]}
    (folder / "serve.json").write_text(json.dumps(config))  # which is YAML
    command = [sys.executable, "-m", "ray.serve.scripts", "run", str(folder / "serve.json")]
    log = folder / "log"
    with log.open("w") as out:
        ray = subprocess.Popen(command, env=os.environ | SLOW_MACHINE, stdout=out, stderr=out)
    try:
        until(lambda: status("/health") == 200, ray, log)
        yield URL
    finally:
        ray.terminate()
        ray.wait(60)


def until(ready, process, log) -> None:
    """Wait for a condition, as long as a process lives."""
    end = time.monotonic() + 300
    while not ready():
        assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.5)


def status(
    path: str, method: str = "GET", body: bytes | None = None, key: str | None = None
) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(URL + path, method=method, data=body, headers=headers)
    with contextlib.suppress(OSError):
        try:
            return urllib.request.urlopen(request, timeout=30).status
        except urllib.error.HTTPError as error:
            return error.code
    return 0


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def ask(client, picture, **options):
    messages = asking(url_of(picture))
    options = {"max_tokens": 12, "temperature": 0} | options
    return client.chat.completions.create(model="tiny", messages=messages, **options)


def test_answers_are_those_of_the_bundle(client, picture, wanted):
    answer = ask(client, picture)
    assert answer.choices[0].message.content == wanted.text
    pieces = [chunk.choices[0].delta.content for chunk in ask(client, picture, stream=True)]
    assert "".join(piece or "" for piece in pieces) == wanted.text


def test_a_picture_is_asked_about_where_it_was_seen(client):
    """With two replicas and no order, three in four of these rounds would miss a kept picture."""
    pictures = [np.random.default_rng(n).integers(0, 256, (56, 56, 3), np.uint8) for n in range(6)]
    for picture in pictures:
        assert not ask(client, picture).usage.prompt_tokens_details.cached_tokens
    time.sleep(2)  # replicas tell the router what they have seen, a little later
    for _ in range(2):
        for picture in pictures:
            assert ask(client, picture).usage.prompt_tokens_details.cached_tokens


def test_requests_are_refused_as_by_one_server(server, client):
    assert status("/v1/models", key=KEY) == 200
    assert status("/v1/models", key="wrong") == 401
    assert status("/v1/chat/completions", "POST", b"{}", "wrong") == 401
    assert status("/v1/chat/completions", "POST", b"{broken", KEY) == 400
    assert status("/v1/chat/completions", "POST", b" " * (65 << 20), KEY) == 413
    assert status("/metrics") == status("/elsewhere") == 404
    with pytest.raises(openai.NotFoundError, match="not served here"):
        client.chat.completions.create(model="other", messages=[])
    with pytest.raises(openai.BadRequestError, match="not supported here"):
        client.chat.completions.create(model="tiny", messages=asking(text=TEXT), n=2)


def test_a_killed_replica_comes_back(server, client, picture, wanted):
    import ray

    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    try:
        from ray.util.state import list_actors

        found: Any = list_actors(filters=[("state", "=", "ALIVE")])
        replicas = [actor for actor in found if actor.class_name.endswith(":Replica")]
        assert len(replicas) == 2
        os.kill(replicas[0].pid, 9)
    finally:
        ray.shutdown()
    end = time.monotonic() + 120
    while time.monotonic() < end:
        with contextlib.suppress(openai.APIStatusError):
            if ask(client, picture).choices[0].message.content == wanted.text:
                return
        time.sleep(0.5)
    raise AssertionError("no answer after a replica was killed")
