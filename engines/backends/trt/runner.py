"""Runs a bundle's engines: device buffers of our own, caches updated in place, one stream.

The T = 1 step is recorded as a CUDA graph and replayed. Letters: base.py.
"""

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ....dtypes import DTYPES
from ....errors import LuvcError
from ...bundle.folder import Bundle
from ...bundle.manifest import Engine, EngineFile, Layout
from ..base import PrefillFeed, PrefillResult, StepFeed, cache_specs, stage_names, stage_results
from .caches import Caches
from .cuda import Buffers, Cuda, Memory
from .engine_choice import pick_engine
from .library import Library
from .plugins import register_plugins
from .prompt_lengths import pad_prompts
from .session import Session, Sessions

ONE_TOKEN, MORE_TOKENS = 0, 1  # profiles of the step graph
COPIED = ("conv", "position")  # kinds of small caches that need not be updated in place


def make_runner(library: Library, bundle: Bundle) -> "TrtRunner":
    """A runner on the GPU of this machine.

    Raises:
        LuvcError: no GPU, no engine for it, or too little device memory.
    """
    cuda = Cuda()
    engine = pick_engine(bundle, library, library.version, cuda.arch)
    if engine.plugins == "library":
        register_plugins("library", None)
    sessions = Sessions(library, cuda, bundle.path / engine.folder)
    description = f"{library.title} {engine.version} on {cuda.name} ({cuda.arch})"
    return TrtRunner(bundle, engine, cuda, sessions, description)


class TrtRunner:
    """Runs engines through a CUDA layer and sessions, both exchangeable for tests.

    Args:
        bundle: a loaded bundle.
        engine: the entry of its manifest to run.
        cuda: the device, see cuda.Cuda.
        open_session: plan path -> session, see trt_session.Session.
        description: library, version and device, for people.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        cuda: Any,
        open_session: Callable[[Path], Session],
        description: str,
    ):
        self.bundle, self.cuda, self.description = bundle, cuda, description
        self.files: dict[str, EngineFile] = {file.graph: file for file in engine.graphs}
        self._open = open_session
        self._keep: Callable[[], None] = getattr(open_session, "keep", lambda: None)
        self._sessions: dict[str, Session] = {}
        self._copied: dict[str, set[str]] = {}  # caches of each graph that are copied back
        self._buffers = Buffers(cuda)
        self._workspace: Memory | None = None
        self._lock = threading.RLock()  # one stream and one scratch memory: one run at a time

    def prepare(self, layout: Layout, vision: bool = True, language: bool = True) -> None:
        """Load the layout's engines and run each once, so that all kernels are compiled."""
        if vision and layout.images:
            low = self.files[layout.graphs.vision].profiles[0]["N"][0]
            self.vision(layout, np.zeros((low, *layout.pixel_shape[1:]), np.float32))
        if language:
            self._prepare_language(layout)
        save = getattr(self._open, "save", None)
        if save is not None:
            save()

    def _prepare_language(self, layout: Layout) -> None:
        low = self.files[layout.graphs.prefill].profiles[0]["B"][0]
        V = layout.visual_tokens
        length = V + 2
        rows = np.broadcast_to(np.arange(length), (low, length))
        axes = self.bundle.manifest.language.position_axes
        positions = rows if axes == 1 else np.repeat(rows[..., None], axes, -1)
        embeds = None
        if layout.images:
            width = self._session(layout.graphs.prefill).width("visual_embeds")
            embeds = np.zeros((low, V, width), np.float32)
        feed = PrefillFeed(
            input_ids=np.zeros((low, length), np.int64),
            visual_embeds=embeds,
            visual_index=rows[:, 1 : V + 1] if layout.images else None,
            position_ids=positions,
            last_index=np.full(low, length - 1),
        )
        caches = self.new_caches(layout, low)
        self.prefill(layout, feed, caches)
        token, text = np.zeros((low, 1), np.int64), np.full(low, 2)
        self.step(layout, StepFeed(token, positions[:, :1] + length, text, token[:, 0]), caches)

    def vision(self, layout: Layout, pixel_values: np.ndarray) -> np.ndarray:
        """float32 [N, ...] -> visual embeddings [N, n, D]."""
        graph, feed = layout.graphs.vision, {"pixel_values": pixel_values}
        self._check_rows(graph, "N", len(pixel_values), layout.pixel_shape[0] * layout.images)
        return self._run(graph, 0, feed, None, ["visual_embeds"])[0]

    def new_caches(self, layout: Layout, batch: int) -> Caches:
        """Zeroed buffers on the device."""
        m = self.bundle.manifest
        self._check_rows(layout.graphs.step, "B", batch)
        specs = cache_specs(m.language, layout, m.text_capacity, m.dtype, batch)
        with self._lock:
            return Caches(self.cuda, specs)

    def prefill(self, layout: Layout, feed: PrefillFeed, caches: Caches) -> PrefillResult:
        """Run prompts and fill the caches in place."""
        scored = layout.schedule.scored
        outputs = ["logits", *stage_names(scored)]
        longest = self.files[layout.graphs.prefill].profiles[0]["S"][-1]
        padded = pad_prompts(feed, longest).tensors
        logits, *rest = self._run(layout.graphs.prefill, 0, padded, caches, outputs)
        return PrefillResult(logits[:, 0], stage_results(scored, rest))

    def step(self, layout: Layout, feed: StepFeed, caches: Caches) -> np.ndarray:
        """Run new tokens and extend the caches in place -> logits [B, vocabulary]."""
        profile = ONE_TOKEN if feed.input_ids.shape[1] == 1 else MORE_TOKENS
        return self._run(layout.graphs.step, profile, vars(feed), caches, ["logits"])[0][:, 0]

    def read_caches(self, caches: Caches) -> dict[str, np.ndarray]:
        """Host copies by name."""
        found = {s.name: np.empty(s.shape, DTYPES[s.dtype].numpy) for s in caches.specs}
        with self._lock:
            for array, address in zip(found.values(), caches.addresses, strict=True):
                self.cuda.download(array, address)
            self.cuda.synchronise()
        return found

    def window(self, caches: Caches, start: int, count: int) -> Caches:
        """Caches of `count` rows from `start` on, in the same memory.

        Raises:
            LuvcError: the engines do not run so few rows, or cannot begin there.
        """
        self._check_rows(self.bundle.manifest.layouts[0].graphs.step, "B", count)
        return caches.window(self.cuda, start, count)

    def copy_caches(self, source: Caches, target: Caches) -> None:
        """Copy rows to as many others, which do not overlap them."""
        with self._lock:
            for a, b, size in zip(source.addresses, target.addresses, source.sizes, strict=True):
                self.cuda.copy(b, a, size)

    def write_caches(self, caches: Caches, values: dict[str, np.ndarray]) -> None:
        """Put back what `read_caches` gave."""
        with self._lock:
            for array, address in zip(values.values(), caches.addresses, strict=True):
                self.cuda.upload(address, np.ascontiguousarray(array))
            self.cuda.synchronise()

    # ---- the work
    def _run(self, graph: str, profile: int, feed, caches: Caches | None, outputs: list[str]):
        """Upload a feed, run, download outputs; caches stay where they are."""
        with self._lock:
            session = self._session(graph)
            decoding = caches is not None and "text_len" in feed and profile == ONE_TOKEN
            buffers = caches.buffers if caches is not None and decoding else self._buffers
            shapes, addresses = {}, {}
            for name, value in feed.items():
                array = np.ascontiguousarray(value, session.dtype(name))
                shapes[name] = array.shape
                addresses[name] = buffers.get((graph, name), array.nbytes)
                self.cuda.upload(addresses[name], array)
            back: list[tuple[int, int, int]] = []
            if caches is not None:
                back = self._bind(graph, caches, buffers, shapes, addresses)
            session.set_shapes(profile, shapes)
            results = [np.empty(session.shape(profile, n), session.dtype(n)) for n in outputs]
            for name, result in zip(outputs, results, strict=True):
                addresses[name] = buffers.get((graph, name), result.nbytes)

            def enqueue() -> None:
                session.enqueue(profile, addresses, *self._scratch())
                for copy in back:
                    self.cuda.copy(*copy)

            if caches is not None and decoding:
                self._decode(session, caches, enqueue)
            else:
                enqueue()
            for name, result in zip(outputs, results, strict=True):
                self.cuda.download(result, addresses[name])
            self.cuda.synchronise()
            self._keep()
            return results

    def _bind(
        self, graph: str, caches: Caches, buffers: Buffers, shapes: dict, addresses: dict[str, int]
    ) -> list[tuple[int, int, int]]:
        """Each cache as input and as output: the engine updates it in place.

        Returns:
            What is to be copied after the run, for caches that it does not: to, from, bytes.
        """
        back = []
        for spec, address, size in zip(caches.specs, caches.addresses, caches.sizes, strict=True):
            output = f"{spec.name}_out"
            shapes[spec.name] = spec.shape
            addresses[spec.name] = addresses[output] = address
            if spec.name in self._copied[graph]:
                addresses[output] = buffers.get((graph, output), size)
                back.append((address, addresses[output], size))
        return back

    def _decode(self, session: Session, caches: Caches, enqueue: Callable[[], None]) -> None:
        """Replay the recorded step; record it at its second run, when everything is allocated."""
        good_for = (id(session), session.epochs[ONE_TOKEN], *self._scratch())
        if caches.recorded is not None and caches.recorded[0] == good_for:
            self.cuda.launch(caches.recorded[1])
        elif caches.warm == good_for and caches.records:
            self._record(caches, good_for, session, enqueue)
        else:
            caches.warm = good_for
            enqueue()

    def _record(self, caches: Caches, good_for: tuple, session: Session, enqueue) -> None:
        """Record the step and run it; a step that cannot be recorded is run as it is."""
        try:
            if not session.capturable(ONE_TOKEN):
                raise RuntimeError("the engine allows none; luvc-build may make one that does")
            caches.recorded = good_for, self.cuda.capture(enqueue)
        except RuntimeError as error:
            warnings.warn(f"decoding without a CUDA graph: {error}", stacklevel=2)
            caches.records = False
            enqueue()
        else:
            self.cuda.launch(caches.recorded[1])  # recording alone runs nothing

    def _session(self, graph: str) -> Session:
        """The session of a graph, opened once; the scratch memory grows to what it needs."""
        with self._lock:
            if graph not in self._sessions:
                with self.bundle.opening(self.files[graph].file) as plan:
                    session = self._open(plan)
                self._copied[graph] = self._not_in_place(graph, session)
                self._sessions[graph] = session
                self._grow(session.workspace)
            return self._sessions[graph]

    def _grow(self, size: int) -> None:
        if self._workspace is None or self._workspace.size < size:
            self._workspace = None  # freed first: both together may not fit
            mend = "build with a smaller --batch"
            self._workspace = Memory(self.cuda, size, "intermediate results", mend)

    def _scratch(self) -> tuple[int, int]:
        assert self._workspace is not None
        return self._workspace.address, self._workspace.size

    def _not_in_place(self, graph: str, session: Session) -> set[str]:
        """Caches that the engine does not update in place.

        Raises:
            LuvcError: there are keys or values among them, which would be too much to copy.
        """
        m = self.bundle.manifest
        layout = next((x for x in m.layouts if graph in (x.graphs.prefill, x.graphs.step)), None)
        if layout is None:
            return set()
        specs = cache_specs(m.language, layout, m.text_capacity, m.dtype, 1)
        found = {s.name for s in specs if not session.in_place(f"{s.name}_out", s.name)}
        large = sorted(name for name in found if name.split("_")[1] not in COPIED)
        if large:
            raise LuvcError(
                f"the engine of {graph} does not update {large[0]} in place; build it again, or use "
                "--backend ort"
            )
        return found

    def _check_rows(self, graph: str, symbol: str, rows: int, factor: int = 1) -> None:
        low, usual, high = self.files[graph].profiles[0][symbol]
        if rows % factor:
            raise LuvcError(f"{rows} rows are no whole number of conversations of {factor} rows")
        if not low <= rows <= high:
            fewest, most = min(low, rows) // factor, max(high, rows) // factor
            raise LuvcError(
                f"a batch of {rows // factor} conversations is outside the engines' "
                f"{low // factor} to {high // factor}: luvc-build --batch "
                f"{fewest},{usual // factor},{most}"
            )
