"""The model `luvc_vlm`: runs in Triton's Python backend, decoupled.

It owns tokenizer, language sessions and caches, and schedules its requests itself (engines/serving).
The vision graph is the model `luvc_vision` of the same server, whose dynamic batcher joins the pictures
of requests that are prepared at the same time, unless the configuration names none.
"""

import dataclasses
import importlib
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__, strict_json
from ...engines.backends import backend as load_backend
from ...engines.bundle.folder import Bundle
from ...engines.bundle.layout import Layout
from ...engines.decoding import Rows
from ...engines.prompt.layouts import most_images
from ...engines.runtime import VLM
from ...engines.serving import Busy, Cancelled, Limits, Scheduler
from ...errors import LuvcError
from ..client_messages import Bounds
from . import requests
from .outbox import Outbox

UTILS = "triton_python_backend_utils"  # exists in a running model alone
REWRITE = "write the repository again with luvc-triton; its bundle is in luvc_vlm/1/bundle"
COUNTS = ("prompt_tokens", "visual_tokens", "reused_tokens")
COUNTERS = {
    "prefills": "groups of prompts run together",
    "prefilled_rows": "prompts run",
    "steps": "decoding steps",
    "stepped_rows": "tokens decoded by steps",
    "cancelled": "requests given up by their clients",
    "failed": "requests refused or failed",
}
PREFIX_COUNTERS = {
    "prefix_hits": "requests that went on from a kept prefix",
    "prefix_misses": "requests that ran a prefix",
}


class TritonPythonModel:
    """What Triton calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the bundle that stands beside this version's model.py."""
        self.pb = pb = importlib.import_module(UTILS)
        self.parameters = read_parameters(args)
        path = Path(args["model_repository"]) / args["model_version"] / "bundle"
        bundle = Bundle.load(path)
        module = load_backend(self.parameters["backend"], bundle)
        models = strict_json.parse(self.parameters["vision"])
        runner = module.runner(bundle, threads=int(self.parameters["threads"]))
        self.vlm = VLM(bundle, runner, RemoteVision(pb, models) if models else None)
        limits = Limits(**self._numbers(Limits))
        self._warm(min(2, limits.rows), vision=not models)
        self.bounds = Bounds(**self._numbers(Bounds))
        self.images = most_images(bundle.manifest)
        self.vlm.processor.megapixels = self.bounds.megapixels
        self.scheduler = Scheduler(self.vlm, limits, ahead=bool(models))
        for layout, why in self.scheduler.prefixes.refusals().items():
            pb.Logger.log_info(f"layout {layout}: requests share no caches, as {why}")
        self.metrics = Metrics(pb, self.scheduler, args)
        final = pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        self.outbox = Outbox(self._response, self._refusal, final, self.metrics.update)

    def execute(self, requests: list[Any]) -> None:
        """Hand requests in; their answers are sent as they come."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._submit(request, sender)
            except Exception as error:
                self.scheduler.counters.failed += 1
                final = self.pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL
                sender.send(self._refusal(error), flags=final)

    def finalize(self) -> None:
        """Refuse what is open and stop."""
        self.scheduler.close()
        self.outbox.close()
        self.vlm.close()

    def _numbers(self, kind: Any) -> dict[str, int]:
        """The parameters that are fields of a dataclass."""
        return {f.name: int(self.parameters[f.name]) for f in dataclasses.fields(kind)}

    def _warm(self, rows: int, vision: bool) -> None:
        """Load what requests need now: later, all answers would wait for it."""
        layout = self.vlm.manifest.layouts[0]
        self.vlm.processor.prepare()
        self.vlm.runner.prepare(layout, vision=vision)
        # steps of several rows have a session of their own on a CPU
        Rows(self.vlm.runner, self.vlm.manifest, layout, rows).step([[0]] * rows)

    def _submit(self, request: Any, sender: Any) -> None:
        def tensor(name: str) -> np.ndarray | None:
            found = self.pb.get_input_tensor_by_name(request, name)
            return None if found is None else found.as_numpy()

        asked = requests.read(tensor, self.bounds, self.images)
        ticket = self.scheduler.submit(
            asked.messages, conversation=asked.session, notify=self.outbox.notify, **asked.options
        )
        self.outbox.open(ticket, sender, asked.stream)

    def _response(self, text: str, answer: Any) -> Any:
        outputs = {"text_output": _string(text)}
        if answer is not None:
            outputs["finish_reason"] = _string(answer.finish_reason)
            outputs["layout"] = _string(answer.layout)
            outputs["ratio"] = np.array([answer.ratio], np.float32)
            outputs["notes"] = _string("\n".join(answer.notes))
            outputs["completion_tokens"] = np.array([len(answer.token_ids)], np.int32)
            outputs |= {name: np.array([getattr(answer, name)], np.int32) for name in COUNTS}
            times = dataclasses.asdict(answer.timing)
            outputs |= {name: np.array([value], np.float32) for name, value in times.items()}
        tensors = [self.pb.Tensor(name, value) for name, value in outputs.items()]
        return self.pb.InferenceResponse(tensors)

    def _refusal(self, error: BaseException) -> Any:
        codes = self.pb.TritonError
        if isinstance(error, Busy):
            failure = codes(str(error), codes.UNAVAILABLE)
        elif isinstance(error, Cancelled):
            failure = codes(str(error), codes.CANCELLED)
        elif isinstance(error, LuvcError):
            failure = codes(str(error), codes.INVALID_ARG)
        else:  # a bug: the trace is for the server's log, not for its client
            trace = "".join(traceback.format_exception(error))
            self.pb.Logger.log_error(trace)
            failure = codes(f"internal error: {type(error).__name__}", codes.INTERNAL)
        return self.pb.InferenceResponse(error=failure)


class RemoteVision:
    """Runs vision graphs as models of the same server.

    Args:
        pb: Triton's Python module.
        models: model of each vision graph.
    """

    def __init__(self, pb: Any, models: dict[str, str]):
        self._pb, self._models = pb, models

    def __call__(self, layout: Layout, pixel_values: np.ndarray) -> np.ndarray:
        """float32 [N, ...] -> visual embeddings [N, n, D]."""
        pb = self._pb
        request = pb.InferenceRequest(
            model_name=self._models[layout.graphs.vision],
            requested_output_names=["visual_embeds"],
            inputs=[pb.Tensor("pixel_values", pixel_values)],
            preferred_memory=pb.PreferredMemory(pb.TRITONSERVER_MEMORY_CPU, 0),
        )
        response = request.exec()
        if response.has_error():
            raise RuntimeError(f"the vision model: {response.error().message()}")
        return np.array(pb.get_output_tensor_by_name(response, "visual_embeds").as_numpy())


class Metrics:
    """The scheduler's counters among the server's Prometheus metrics, where these are on."""

    def __init__(self, pb: Any, scheduler: Scheduler, args: dict[str, str]):
        self._scheduler = scheduler
        self._metrics: dict[str, Any] = {}
        self._families = []  # a family that is not held takes its metrics with it
        labels = {"model": args["model_name"], "version": args["model_version"]}
        gauges = {
            "running": "requests that hold a row of the caches",
            "waiting": "requests that wait for a row",
            "sessions": "conversations kept between their turns",
            "session_bytes": "host memory of these conversations",
            "evicted_sessions": "conversations forgotten for lack of memory",
            "prefixes": "prefixes of prompts kept",
            "prefix_bytes": "host memory of these prefixes",
            "evicted_prefixes": "prefixes forgotten for lack of memory",
        }
        counters = COUNTERS | PREFIX_COUNTERS
        kinds = [(gauges, pb.MetricFamily.GAUGE, ""), (counters, pb.MetricFamily.COUNTER, "_total")]
        try:
            for texts, kind, ending in kinds:
                for name, text in texts.items():
                    title = f"luvc_{name}{ending}"
                    family = pb.MetricFamily(name=title, description=text, kind=kind)
                    self._families.append(family)
                    self._metrics[name] = family.Metric(labels=labels)
        except pb.TritonModelException:  # the server runs without metrics
            self._metrics = {}
        self._last: dict[str, float] = dict.fromkeys(counters, 0)

    def update(self) -> None:
        """Bring the metrics up to date."""
        s = self._scheduler
        if not self._metrics:
            return
        values = {
            "running": s.running,
            "waiting": s.waiting,
            "sessions": len(s.conversations),
            "session_bytes": s.conversations.bytes,
            "evicted_sessions": s.conversations.evicted,
            "prefixes": len(s.prefixes),
            "prefix_bytes": s.prefixes.bytes,
            "evicted_prefixes": s.prefixes.evicted,
        }
        for name, value in values.items():
            if value != self._last.get(name):
                self._metrics[name].set(value)
                self._last[name] = value
        counts = {name: getattr(s.counters, name) for name in COUNTERS}
        counts |= {"prefix_hits": s.prefixes.hits, "prefix_misses": s.prefixes.misses}
        for name, value in counts.items():
            if value != self._last[name]:
                self._metrics[name].increment(value - self._last[name])
                self._last[name] = value


class Parameters(dict[str, str]):
    """The parameters of a model's configuration; one that is not there is a LuvcError."""

    def __missing__(self, name: str) -> str:
        written = self.get("luvc_version", "of another version")
        raise LuvcError(
            f"the configuration, written by luvc-export {written}, has no parameter {name!r}, which "
            f"luvc-export {__version__} reads: {REWRITE}"
        )


def read_parameters(args: dict[str, str]) -> Parameters:
    """The parameters of a model's configuration.

    Args:
        args: of `initialize`.

    Raises:
        LuvcError: another version wrote the configuration: what it means may have changed.
    """
    found = strict_json.parse(args["model_config"]).get("parameters", {})
    parameters = Parameters({name: value["string_value"] for name, value in found.items()})
    if parameters["luvc_version"] != __version__:
        raise LuvcError(
            f"the configuration was written by luvc-export {parameters['luvc_version']}, this is "
            f"{__version__}: {REWRITE}"
        )
    return parameters


def _string(text: str) -> np.ndarray:
    return np.array([text.encode()], np.object_)
