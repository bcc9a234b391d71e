"""A real server in a thread of the test process, and OpenAI's own client."""

import base64
import io
import socket
import threading
import time
from contextlib import contextmanager

import openai
import pytest
import uvicorn
from PIL import Image

from luvc.engines import VLM
from luvc.engines.serving import Limits, Scheduler
from luvc.tools.client_messages import Bounds
from luvc.tools.serve.app import Service, application
from luvc.tools.serve.settings import Settings

KEY = "secret"


@contextmanager
def serving(bundle, limits=None, **settings):
    """A server of a bundle -> its base URL and its scheduler."""
    with VLM.load(bundle, threads=1) as vlm, Scheduler(vlm, limits or Limits(rows=4)) as scheduler:
        chosen = {"name": "tiny", "api_key": KEY, "bounds": Bounds(1, 1), "body_mib": 2} | settings
        app = application(Service(scheduler, Settings(**chosen)))
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=10)
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            thread = threading.Thread(target=server.run, args=([listening],))
            thread.start()
            while not server.started:
                time.sleep(0.01)
            try:
                yield f"http://127.0.0.1:{port}", scheduler
            finally:
                server.should_exit = True
                thread.join()


@pytest.fixture(scope="module")
def bundle(workshop):
    return workshop.bundle("qwen2-text").path


@pytest.fixture(scope="module")
def server(bundle):
    with serving(bundle) as (url, scheduler):
        yield url, scheduler


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server[0]}/v1", api_key=KEY, max_retries=0) as client:
        yield client


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
