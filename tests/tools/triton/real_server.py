"""A generated repository on a real Triton server (CPU), as clients see it.

`make .triton/ready` installs the server; LUVC_TRITON names another place, and makes its absence an error.
"""

import base64
import contextlib
import io
import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from queue import Queue

import numpy as np
import pytest
from PIL import Image

from luvc.tools.triton.server import Ports

from ...conftest import ask

ROOT = Path(__file__).parents[3]
PLACE = Path(os.environ.get("LUVC_TRITON", ROOT / ".triton"))
ON_SERVER = [
    pytest.mark.xdist_group("triton"),  # one server for all of these tests
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
    "text_input": (object, "BYTES"),
    "stream": (bool, "BOOL"),
    "max_tokens": (np.int32, "INT32"),
    "temperature": (np.float32, "FP32"),
    "top_p": (np.float32, "FP32"),
    "seed": (np.int64, "INT64"),
}


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


SAMPLED = {"max_tokens": 12, "temperature": 1.5, "top_p": 0.95, "seed": 5}


def own(vlm, text, image, **fields):
    """The runtime's own answer for the fields of a request."""
    fields["max_new_tokens"] = fields.pop("max_tokens")
    return vlm.generate(ask(text, image), **fields)
