"""Runs a bundle's graphs in ONNX Runtime, on the CPU or through the CUDA execution provider."""

import contextlib
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....cores import pool_size
from ....dtypes import DTYPES
from ....errors import LuvcError, brief
from ...bundle.folder import Bundle
from ...bundle.graph_file import read_graph
from ...bundle.layout import Layout
from ...bundle.tensors import cache_specs, stage_names, stage_results
from ...closing import Closing
from ..base import PrefillFeed, PrefillResult, StepFeed, VisionResult
from .chunks import parts_of_images, parts_of_prompts, whole_batch
from .device import working_device
from .kv_buffers import Caches, fitting, free_slots, grown, rounded
from .quantised import kernels
from .weights import FOLDER, SharedWeights, follow


class OrtRunner(Closing):
    """Runs a bundle's graphs in ONNX Runtime; sessions are made when a layout is first used.

    Args:
        bundle: a loaded bundle.
        threads: threads inside one operator; 0 for as many as there are cores to use.
        as_written: run the graphs as they are, with float32 products of quantised weights.
    """

    def __init__(self, bundle: Bundle, threads: int = 0, as_written: bool = False):
        self.bundle, self.threads = bundle, pool_size(threads)
        self.device = working_device()
        self._sessions: dict[tuple[str, bool], Any] = {}
        self._weights = SharedWeights()
        self._made: weakref.WeakSet[Caches] = weakref.WeakSet()
        self._loading = threading.Lock()  # runs do not wait for a session that another thread makes
        self._lock = threading.Lock()  # of what has been made
        # half precision is computed in float32 here, from copies that cannot be shared
        self._shares = (
            self.device == "cpu" and bundle.manifest.dtype == "float32" and not as_written
        )

    @property
    def rounds(self) -> bool:
        """Whether products of quantised weights round activations, too."""
        return self._shares and self.bundle.manifest.weights is not None

    @property
    def description(self) -> str:
        """Backend, version and device, for people."""
        import onnxruntime

        products = kernels(self.bundle.manifest.weights, self._shares)
        where = f"ONNX Runtime {onnxruntime.__version__} on {self.device.upper()}"
        return f"{where}, {products}" if products else where

    def prepare(self, layout: Layout, vision: bool = True, language: bool = True) -> None:
        """Make the layout's sessions, or those of a part of the model."""
        if vision and layout.images:
            self.session(layout.graphs.vision)
        if language:
            self.session(layout.graphs.prefill)
            self.session(self._step(layout))

    def _step(self, layout: Layout) -> str:
        """The step graph of a layout; where all are one, the first, so that there is one session."""
        return (self.bundle.manifest.layouts[0] if self.mixes else layout).graphs.step

    def session(self, graph: str, packed: bool = False) -> Any:
        """The session of a graph file, made once.

        Args:
            graph: path inside the bundle.
            packed: with packed weights of its own, for the steps of a batch.

        Raises:
            LuvcError: the bundle was replaced since it was loaded, or the graph is none that luvc writes.
        """
        packed = packed and self._shares and not self.rounds  # quantised weights are always packed
        key = graph, packed
        if (found := self._sessions.get(key)) is not None:
            return found
        with self._loading:
            self._check_open()
            if key not in self._sessions:
                with self.bundle.opening(graph) as path:
                    self._sessions[key] = self._make(graph, path, packed)
            return self._sessions[key]

    def _make(self, graph: str, path: Path, packed: bool) -> Any:
        """A session of a graph that luvc wrote; whatever ONNX Runtime raises is the file's fault."""
        model = read_graph(self.bundle, graph)
        with self._blaming(graph):
            return self._open(path, model, packed)

    @contextlib.contextmanager
    def _blaming(self, graph: str) -> Iterator[None]:
        """What ONNX Runtime raises is said of the graph file: it has no class of its own."""
        try:
            yield
        except (LuvcError, MemoryError):
            raise
        except Exception as e:
            raise LuvcError(
                f"{self.bundle.path}: {graph} cannot be run ({brief(e)}); export the bundle again"
            ) from e

    def _options(self) -> Any:
        """Of every session."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self.threads
        # prompts differ in length: a plan for each would hold its own block beside the arena
        options.enable_mem_pattern = False
        # a spinning pool burns the cores that the caller's own work needs between steps
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return options

    def _open(self, path: Path, model: Any, packed: bool) -> Any:
        import onnxruntime

        options = self._options()
        if self.mixes:
            free_slots(model, self.bundle.manifest)
        if self._shares:
            return self._weights.session(path, options, packed, model)
        if self.bundle.manifest.weights is not None:
            # no kernels for codes: without this each run would make numbers of them again
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        providers = ["CPUExecutionProvider"]
        if self.device == "cuda":
            providers.insert(0, "CUDAExecutionProvider")
        source: str | bytes = str(path)
        if self.mixes:
            options.add_session_config_entry(FOLDER, str(follow(model, path.parent)))
            source = model.SerializeToString()
        return onnxruntime.InferenceSession(source, options, providers=providers)

    def vision(self, layout: Layout, pixel_values: np.ndarray) -> np.ndarray:
        """float32 [N, ...] -> visual embeddings [N, n, D]."""
        return self.vision_result(layout, pixel_values).embeds

    def vision_result(self, layout: Layout, pixel_values: np.ndarray) -> VisionResult:
        """`vision`, with what its matched OIM steps joined."""
        session = self.session(layout.graphs.vision)
        with self._blaming(layout.graphs.vision):
            parts = (
                parts_of_images(layout, pixel_values) if self.device == "cpu" else [pixel_values]
            )
            runs = [session.run(None, {"pixel_values": part}) for part in parts]
            embeds, *joins = (
                np.concatenate([_of_rank(3, x) for x in outputs])
                for outputs in zip(*runs, strict=True)
            )
            return VisionResult(embeds, tuple(joins))

    @property
    def mixes(self) -> bool:
        """Whether rows of all layouts may lie in one batch: they share the step graph, whose caches grow."""
        return self.bundle.manifest.slots == "free" and self.device == "cpu"

    def new_caches(self, layout: Layout, batch: int, slots: Sequence[int] | None = None) -> Caches:
        """Zeroed buffers on the device; where they can grow, of the slots that are needed now."""
        m = self.bundle.manifest
        wanted = [rounded(n) for n in slots] if slots is not None and self.mixes else None
        together = m.together(layout)
        specs = cache_specs(m.language, layout, m.text_capacity, m.dtype, batch, together, wanted)
        with fitting():
            return self._kept({s.name: np.zeros(s.shape, DTYPES[s.dtype].numpy) for s in specs})

    def grown(self, layout: Layout, caches: Caches, slots: Sequence[int]) -> Caches:
        """Caches of at least so many slots in each language layer: these, or a larger copy of them.

        Steps attend over all slots that there are, so there are few more than needed.
        """
        if not self.mixes:
            return caches
        self._check_open()
        if caches.hold(slots):
            return caches
        m = self.bundle.manifest
        together = m.together(layout)
        specs = cache_specs(m.language, layout, m.text_capacity, m.dtype, 1, together, slots)
        with fitting():
            larger = grown(caches.host, specs)
        return caches if larger is None else self._kept(larger)

    def window(self, caches: Caches, start: int, count: int) -> Caches:
        """Caches of `count` rows from `start` on, in the same memory (CPU only)."""
        self._check_open()
        return self._kept({name: a[start : start + count] for name, a in caches.host.items()})

    def copy_caches(self, source: Caches, target: Caches) -> None:
        """Copy rows to as many others, which do not overlap them (CPU only)."""
        self._check_open()
        for name, array in source.host.items():
            target.host[name][...] = array

    def write_caches(self, caches: Caches, values: dict[str, np.ndarray]) -> None:
        """Put back what `read_caches` gave of a cache, or its first slots alone (CPU only)."""
        self._check_open()
        for name, array in values.items():
            caches.host[name][:, :, : array.shape[2]] = array

    def prefill(self, layout: Layout, feed: PrefillFeed, caches: Caches) -> PrefillResult:
        """Run prompts and fill the caches in place."""
        session = self.session(layout.graphs.prefill)
        parts = parts_of_prompts(feed) if self.device == "cpu" else [(0, feed)]
        with self._blaming(layout.graphs.prefill):
            if len(parts) == 1:
                return self._prefill(session, layout, feed, caches)
            windows = [self.window(caches, first, len(part.input_ids)) for first, part in parts]
            runs = zip(parts, windows, strict=True)
            done = [self._prefill(session, layout, part, rows) for (_, part), rows in runs]
            return whole_batch(done)

    def _prefill(self, session, layout: Layout, feed: PrefillFeed, caches: Caches) -> PrefillResult:
        """Run prompts at once."""
        scored = layout.schedule.scored
        logits, *rest = self._run(session, feed.tensors, caches, ["logits", *stage_names(scored)])
        return PrefillResult(self._last(logits), stage_results(scored, rest))

    def step(self, layout: Layout, feed: StepFeed, caches: Caches) -> np.ndarray:
        """Run new tokens and extend the caches in place -> logits [B, vocabulary]."""
        graph = self._step(layout)
        session = self.session(graph, packed=len(feed.input_ids) > 1)
        with self._blaming(graph):
            return self._last(self._run(session, feed.tensors, caches, ["logits"])[0])

    def read_caches(self, caches: Caches) -> dict[str, np.ndarray]:
        """Host copies, by name."""
        self._check_open()
        return {name: np.array(value.numpy()) for name, value in caches.values.items()}

    def close(self) -> None:
        """Give sessions, weights and caches back; a run (of a batch: its part) keeps its own to its end."""
        with self._loading, self._lock:
            self._closed = True
            self._sessions.clear()
            self._weights = SharedWeights()
            for caches in self._made:
                caches.close()

    # ---- the work
    def _kept(self, arrays: dict[str, np.ndarray]) -> Caches:
        """Caches that `close` gives back."""
        with self._lock:
            self._check_open()
            caches = Caches(arrays, self.device)
            self._made.add(caches)
            return caches

    def _last(self, logits: np.ndarray) -> np.ndarray:
        """[B, 1, vocabulary] -> [B, vocabulary]."""
        last = _of_rank(3, logits)[:, 0]
        if last.shape[1] != self.bundle.manifest.language.vocab_size:
            raise ValueError(f"logits of {last.shape[1]} tokens")
        return last

    def _run(self, session, feed, caches: Caches, outputs: list[str]) -> list[np.ndarray]:
        """Bind each cache as input and as output: TensorScatter then writes in place."""
        binding = session.io_binding()
        held = caches.values  # by this run too: another thread may close the model meanwhile
        self._check_open()
        for name in outputs:  # first, so that they come first in get_outputs()
            binding.bind_output(name, "cpu")
        for name, value in feed.items():
            binding.bind_cpu_input(name, value)
        for name, cache in held.items():
            binding.bind_ortvalue_input(name, cache)
            binding.bind_ortvalue_output(f"{name}_out", cache)
        session.run_with_iobinding(binding)
        return [value.numpy() for value in binding.get_outputs()[: len(outputs)]]


def _of_rank(rank: int, array: np.ndarray) -> np.ndarray:
    """A float output of a graph, which a stranger's may give other axes or another type.

    Raises:
        ValueError: it has.
    """
    if array.ndim != rank or not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"an output of shape {array.shape} and type {array.dtype}")
    return array
