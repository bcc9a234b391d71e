"""ONNX Runtime: the embedded default, on the CPU or through the CUDA execution provider."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import LuvcError
from ..bundle import Bundle
from ..manifest import Layout
from .base import PrefillFeed, PrefillResult, StageResult, StepFeed, cache_names, cache_shapes
from .ort_weights import SharedWeights

NAME = "ort"
NUMPY = {"float32": np.float32, "float16": np.float16}


def available() -> str | None:
    """None, or why this backend cannot be used and how to mend it."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return (
            "ONNX Runtime is not installed: pip install 'luvc-export[cpu]' "
            "(or [gpu] on a machine with an NVIDIA GPU)"
        )
    return None


def usable(bundle: Bundle) -> str | None:
    """None, or why this bundle cannot be run here."""
    if bundle.manifest.dtype not in NUMPY:
        return (
            f"{bundle.path} holds {bundle.manifest.dtype} weights, which ONNX Runtime does not run: use "
            "--backend tensorrt or tensorrt-rtx on a GPU, or export with --dtype fp16"
        )
    return available()


class OrtRunner:
    """Runs a bundle's graphs in ONNX Runtime; sessions are made when a layout is first used.

    Args:
        bundle: a loaded bundle.
        threads: threads inside one operator; 0 lets ONNX Runtime choose.
    """

    name = NAME

    def __init__(self, bundle: Bundle, threads: int = 0):
        import onnxruntime

        self.bundle, self.threads = bundle, threads
        names = onnxruntime.get_available_providers()
        self.device = "cuda" if "CUDAExecutionProvider" in names else "cpu"
        self._sessions: dict[tuple[str, bool], Any] = {}
        self._dtype = NUMPY[bundle.manifest.dtype]
        self._weights = SharedWeights()
        # half precision is computed in float32 here, from copies that cannot be shared
        self._shares = self.device == "cpu" and self._dtype is np.float32

    @property
    def description(self) -> str:
        """Backend, version and device, for people."""
        import onnxruntime

        return f"ONNX Runtime {onnxruntime.__version__} on {self.device.upper()}"

    def prepare(self, layout: Layout) -> None:
        """Make the layout's sessions."""
        for graph in (layout.graphs.vision, layout.graphs.prefill, layout.graphs.step):
            self.session(graph)

    def session(self, graph: str, packed: bool = False) -> Any:
        """The session of a graph file, made once.

        Args:
            graph: path inside the bundle.
            packed: with packed weights of its own, for the steps of a batch.
        """
        key = graph, packed and self._shares
        if key not in self._sessions:
            self._sessions[key] = self._make(self.bundle.file(graph), packed)
        return self._sessions[key]

    def _make(self, path: Path, packed: bool) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self.threads
        # a spinning pool burns the cores that the caller's own work needs between steps
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self._shares:
            return self._weights.session(path, options, packed)
        providers = ["CPUExecutionProvider"]
        if self.device == "cuda":
            providers.insert(0, "CUDAExecutionProvider")
        return onnxruntime.InferenceSession(str(path), options, providers=providers)

    def vision(self, layout: Layout, pixel_values: np.ndarray) -> np.ndarray:
        """float32 [N, 3, H, W] -> visual embeddings [N, n, D]."""
        return self.session(layout.graphs.vision).run(None, {"pixel_values": pixel_values})[0]

    def new_caches(self, layout: Layout, batch: int) -> list[Any]:
        """Zeroed buffers on the device, key and value of each layer in turn."""
        import onnxruntime

        lm, m = self.bundle.manifest.language, self.bundle.manifest
        shapes = cache_shapes(lm.layers, lm.kv_heads, lm.head_dim, m.text_capacity, layout, batch)
        make = onnxruntime.OrtValue.ortvalue_from_numpy
        return [make(np.zeros(s, self._dtype), self.device, 0) for s in shapes]

    def prefill(self, layout: Layout, feed: PrefillFeed, caches: list[Any]) -> PrefillResult:
        """Run prompts and fill the caches in place."""
        scored = [p.layer for p in layout.schedule.language if p.keep]
        names = [f"{n}_{layer}" for layer in scored for n in ("energies", "kept")]
        session = self.session(layout.graphs.prefill)
        logits, *rest = self._run(session, vars(feed), caches, ["logits", *names])
        stages = {
            layer: StageResult(rest[2 * i], rest[2 * i + 1]) for i, layer in enumerate(scored)
        }
        return PrefillResult(logits[:, 0], stages)

    def step(self, layout: Layout, feed: StepFeed, caches: list[Any]) -> np.ndarray:
        """Run new tokens and extend the caches in place -> logits [B, vocabulary]."""
        session = self.session(layout.graphs.step, packed=len(feed.input_ids) > 1)
        return self._run(session, vars(feed), caches, ["logits"])[0][:, 0]

    def read_caches(self, caches: list[Any]) -> list[np.ndarray]:
        """Host copies."""
        return [c.numpy() for c in caches]

    def _run(self, session, feed, caches: list[Any], outputs: list[str]) -> list[np.ndarray]:
        """Bind each cache as input and as output: TensorScatter then writes in place."""
        binding = session.io_binding()
        for name in outputs:  # first, so that they come first in get_outputs()
            binding.bind_output(name, "cpu")
        for name, value in feed.items():
            binding.bind_cpu_input(name, value)
        for name, cache in zip(self._cache_names(), caches, strict=True):
            binding.bind_ortvalue_input(name, cache)
            binding.bind_ortvalue_output(f"{name}_out", cache)
        session.run_with_iobinding(binding)
        return [value.numpy() for value in binding.get_outputs()[: len(outputs)]]

    @functools.cache  # noqa: B019
    def _cache_names(self) -> list[str]:
        layers = self.bundle.manifest.language.layers
        return cache_names(range(layers))


def runner(bundle: Bundle, threads: int = 0) -> OrtRunner:
    """A runner for the bundle.

    Raises:
        LuvcError: its dtype is not one ONNX Runtime runs.
    """
    problem = usable(bundle)
    if problem is not None:
        raise LuvcError(problem)
    return OrtRunner(bundle, threads)
