"""What runs in and around the server: models, outbox and launcher, on stand-ins for Triton itself."""

import json
import subprocess
import sys
import threading
import urllib.request
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from luvc.engines.answer import Answer, Timing
from luvc.engines.backends.ort.runner import OrtRunner
from luvc.engines.backends.trt.runner import TrtRunner
from luvc.engines.serving import Busy, Cancelled, Limits, Ticket
from luvc.errors import LuvcError
from luvc.tools.client_messages import Bounds
from luvc.tools.triton import vision_model, vlm_model
from luvc.tools.triton.outbox import Outbox
from luvc.tools.triton.server import Binary, Ports, Server

from ...engines.backends.fake_device import FakeCuda
from ...engines.backends.fake_runner import make, opened

pytest.importorskip("tritonclient.grpc")
from luvc.tools.triton import config
from luvc.tools.triton.repository import Options, write

from .repositories import OPTIONS, read, with_engines


class Unavailable(Exception):
    """What Triton raises where metrics are off."""


class NoMetrics:
    GAUGE, COUNTER = "gauge", "counter"

    def __init__(self, **about):
        raise Unavailable


class Failure(str):
    """A TritonError."""

    UNAVAILABLE = "UNAVAILABLE"
    INVALID_ARG = "INVALID_ARG"
    CANCELLED = "CANCELLED"

    def __new__(cls, text, code):
        return super().__new__(cls, f"{code}: {text}")


@pytest.fixture
def triton(monkeypatch):
    stand_in = SimpleNamespace(
        MetricFamily=NoMetrics,
        TritonModelException=Unavailable,
        TritonError=Failure,
        InferenceResponse=lambda error: error,
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
    )
    monkeypatch.setitem(sys.modules, vlm_model.UTILS, stand_in)
    return stand_in


def arguments(model: Path) -> dict[str, str]:
    """What Triton gives a model's `initialize`."""
    parameters = read(model / "config.pbtxt").parameters
    named = {name: {"string_value": value.string_value} for name, value in parameters.items()}
    config = json.dumps({"parameters": named})
    return {
        "model_repository": str(model),
        "model_version": "1",
        "model_name": model.name,
        "model_config": config,
    }


def test_luvc_vlm_loads_what_it_runs(workshop, tmp_path, triton):
    """Also the packed step of a batch; not the vision graph, which luvc_vision runs."""
    bundle = workshop.bundle("qwen2")
    limits = Limits(rows=5, prefill=3, waiting=7, session_mib=11, prefix_mib=13, preparing=1)
    options = Options(limits, Bounds(image_mib=2, megapixels=9))
    write(bundle, tmp_path / "r", options)
    model = vlm_model.TritonPythonModel()
    model.initialize(arguments(tmp_path / "r" / "luvc_vlm"))
    runner = model.vlm.runner
    assert isinstance(runner, OrtRunner)
    made = set(runner._sessions)
    model.finalize()
    assert not runner._sessions
    graphs = bundle.manifest.layouts[0].graphs
    assert made == {(graphs.prefill, False), (graphs.step, False), (graphs.step, True)}
    assert model.scheduler.limits == replace(limits, preparing=3), "as many as are batched"
    assert model.bounds == options.bounds


def test_refusals_have_the_servers_codes(triton):
    model = vlm_model.TritonPythonModel()
    model.pb = triton
    cases = {"UNAVAILABLE": Busy, "CANCELLED": Cancelled, "INVALID_ARG": LuvcError}
    for code, error in cases.items():
        assert model._refusal(error("why")) == f"{code}: why"


@pytest.mark.parametrize(
    ("module", "name", "parameter", "value", "message"),
    [
        (vlm_model, "luvc_vlm", "luvc_version", "0.0.1", "by luvc-export 0.0.1, this is"),
        (vision_model, "luvc_vision", "luvc_version", "0.0.1", "by luvc-export 0.0.1, this is"),
        (vlm_model, "luvc_vlm", "luvc_version", None, "has no parameter 'luvc_version'"),
        (vlm_model, "luvc_vlm", "waiting", None, "has no parameter 'waiting'"),
        (vision_model, "luvc_vision", "graph", None, "has no parameter 'graph'"),
    ],
)
def test_a_repository_of_another_version(
    workshop, tmp_path, triton, module, name, parameter, value, message
):
    write(workshop.bundle("qwen2"), tmp_path / "r", OPTIONS)
    given = arguments(tmp_path / "r" / name)
    parameters = json.loads(given["model_config"])["parameters"]
    del parameters[parameter]
    if value is not None:
        parameters[parameter] = {"string_value": value}
    given["model_config"] = json.dumps({"parameters": parameters})
    with pytest.raises(LuvcError, match=f"{message}.*write the repository again with luvc-triton"):
        module.TritonPythonModel().initialize(given)


def test_a_request_may_name_its_layout():
    model: Any = vlm_model.TritonPythonModel()
    named = []
    model.pb = SimpleNamespace(get_input_tensor_by_name=lambda request, name: request.get(name))
    model.bounds, model.images = Bounds(), 1
    model.scheduler = SimpleNamespace(submit=lambda turns, **o: named.append(o.get("layout")))
    model.outbox = SimpleNamespace(notify=None, open=lambda *about: None)

    def text(value: bytes):
        return SimpleNamespace(as_numpy=lambda: np.array([value], object))

    for fields in ({"layout": text(b"56x112")}, {"layout": text(b"")}, {}):
        model._submit({"text_input": text(b"Why?"), **fields}, Sender())
    assert named == ["56x112", None, None]


def test_the_last_response_is_what_the_configuration_says():
    model: Any = vlm_model.TritonPythonModel()
    model.pb = SimpleNamespace(Tensor=lambda name, value: (name, value), InferenceResponse=dict)
    answer = Answer("blue", [5, 6], "stop", 3, 4, "56x112", {}, 0, Timing(), ("one", "two"))
    last = model._response("blue", answer)
    types = {"TYPE_STRING": np.object_, "TYPE_INT32": np.int32, "TYPE_FP32": np.float32}
    said = {name: (value.dtype, value.shape) for name, value in last.items()}
    assert said == {name: (np.dtype(types[kind]), (1,)) for name, kind in config.OUTPUTS}
    assert last["layout"].item() == b"56x112" and last["notes"].item() == b"one\ntwo"
    quiet = model._response("blue", replace(answer, notes=()))
    assert quiet["notes"].item() == b""
    assert set(model._response("bl", None)) == {"text_output"}


def test_luvc_vision_runs_engines_of_several_tiles(workshop, tmp_path, triton, monkeypatch):
    """An engine takes whole prompts: not a single tile."""
    bundle, cuda = workshop.bundle("qwen3-128-untied-tiles", 1), FakeCuda()
    write(bundle, tmp_path / "r", OPTIONS)
    (engine,) = with_engines(bundle, "portable", backend="tensorrt-rtx").manifest.engines

    def runner(found, threads):
        return make(found, cuda, engine)

    module = SimpleNamespace(runner=runner)
    monkeypatch.setattr(vision_model, "load_backend", lambda name, found: module)
    model = vision_model.TritonPythonModel()
    model.initialize(arguments(tmp_path / "r" / "luvc_vision"))
    assert isinstance(model.runner, TrtRunner)
    assert [s.runs for s in opened(model.runner)] == [1]
    (layout,) = bundle.manifest.layouts
    pixels = np.zeros((9, *layout.pixel_shape[1:]), np.float32)  # 3 prompts; the most are 2
    with pytest.raises(LuvcError, match=r"batch of 3 .* 1 to 2: luvc-build --batch 1,1,3"):
        model.runner.vision(layout, pixels)
    with pytest.raises(LuvcError, match=r"7 rows are no whole number of conversations of 3 rows"):
        model.runner.vision(layout, pixels[:7])
    model.finalize()
    assert not cuda.held


class Sender:
    """Takes responses; a broken one fails at everything."""

    def __init__(self, broken: bool = False):
        self.broken, self.sent = broken, []

    def is_cancelled(self) -> bool:
        return self._unless_broken(False)

    def send(self, response, flags=0):
        self.sent.append(self._unless_broken((response, flags)))

    def _unless_broken(self, value):
        if self.broken:
            raise RuntimeError("the client's sender is gone")
        return value


def test_one_broken_sender_keeps_nobody_else_waiting():
    def respond(text, answer):
        if text == "no tensor":
            raise TypeError(text)
        return text

    def idle():
        raise ZeroDivisionError

    outbox = Outbox(respond, str, 1, idle=idle)
    senders = [Sender(broken=True), Sender(), Sender()]
    tickets = [Ticket(outbox.notify) for _ in senders]
    for ticket, sender in zip(tickets, senders, strict=True):
        outbox.open(ticket, sender, True)
    for ticket, text in zip(tickets, ("lost", "no tensor", "good"), strict=True):
        ticket.add(text)
    tickets[2].fail(LuvcError("at last"))
    outbox.close()
    assert senders[1].sent == [("no tensor", 1)], "the error, as the last response"
    assert senders[2].sent[-1] == ("at last", 1)
    assert [t.cancelled for t in tickets] == [True, True, False]


# ---- the launcher
class Answers(BaseHTTPRequestHandler):
    """A server that is ready and says its name."""

    name = ""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"name": self.name}).encode())

    def log_message(self, *about):
        pass


def test_a_proxy_does_not_hide_the_server(tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # one made before knows no proxy
    monkeypatch.setattr(subprocess, "Popen", lambda *command, **options: None)
    with HTTPServer(("127.0.0.1", 0), Answers) as http:
        ports = Ports(http.server_port, 1, 2)
        launched = Server(Binary(Path("tritonserver")), tmp_path, ports)
        monkeypatch.setattr(Answers, "name", launched._id)
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        ready, alive = launched.ready(), launched._says_ready("luvc_vlm")
        http.shutdown()
    assert ready and alive
