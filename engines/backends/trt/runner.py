"""Runs a bundle's engines: device buffers of our own, caches updated in place, one stream.

The T = 1 step is recorded as a CUDA graph and replayed. Letters: base.py.
"""

import contextlib
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ....dtypes import DTYPES
from ....errors import LuvcError
from ...bundle.folder import Bundle
from ...bundle.joins import join_names
from ...bundle.layout import Layout
from ...bundle.manifest import Engine, EngineFile
from ...bundle.tensors import cache_specs, stage_names, stage_results
from ...closing import Closing
from ..base import PrefillFeed, PrefillResult, StepFeed, VisionResult
from .cuda import Buffers, Memory
from .kv_buffers import Caches, copied_caches, filled_up
from .prompt_lengths import pad_prompts, pad_turns, smallest_feeds
from .session import Session, Sessions

ONE_TOKEN, MORE_TOKENS = 0, 1  # profiles of the step graph


class TrtRunner(Closing):
    """Runs engines through a CUDA layer and sessions; tests put others in their place.

    Args:
        bundle: a loaded bundle.
        engine: the entry of its manifest to run.
        cuda: the device, see cuda.Cuda.
        sessions: opens the engines; closed with the runner, as the device is.
        description: library, version and device, for people.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        cuda: Any,
        sessions: Sessions,
        description: str,
    ):
        self.bundle = bundle
        self.cuda = cuda
        self.description = description
        self.files: dict[str, EngineFile] = {file.graph: file for file in engine.graphs}
        self._opener = sessions
        self._sessions: dict[str, Session] = {}
        self._copied: dict[str, set[str]] = {}  # caches of each graph that are copied back
        self._buffers = Buffers(cuda)
        self._workspace: Memory | None = None
        self._made: weakref.WeakSet[Caches] = weakref.WeakSet()
        self._lock = threading.RLock()  # one stream and one scratch memory: one run at a time

    def prepare(self, layout: Layout, vision: bool = True, language: bool = True) -> None:
        """Load the layout's engines and run each once, so that all kernels are compiled."""
        if vision and layout.images:
            low = self.files[layout.graphs.vision].profiles[0]["N"][0]
            self.vision(layout, np.zeros((low, *layout.pixel_shape[1:]), np.float32))
        if language:
            self._warm_up(layout)
        self._opener.save()

    def vision(self, layout: Layout, pixel_values: np.ndarray) -> np.ndarray:
        """float32 [N, ...] -> visual embeddings [N, n, D]."""
        return self.vision_result(layout, pixel_values).embeds

    def vision_result(self, layout: Layout, pixel_values: np.ndarray) -> VisionResult:
        """`vision`, with what its matched OIM steps joined; nothing of engines from before they told it."""
        graph, feed = layout.graphs.vision, {"pixel_values": pixel_values}
        self._check_rows(graph, "N", len(pixel_values), layout.pixel_shape[0] * layout.images)
        # all that the engine has, read or not: it does not run with an output that has no memory
        told = filter(self._session(graph).has, join_names(layout.schedule))
        embeds, *joins = self._run(graph, 0, feed, None, ["visual_embeds", *told])
        return VisionResult(embeds, tuple(joins))

    @property
    def mixes(self) -> bool:
        """Engines have the slots of one layout."""
        return False

    def new_caches(self, layout: Layout, batch: int, slots: Sequence[int] | None = None) -> Caches:
        """Zeroed buffers on the device, at full capacity."""
        del slots
        m = self.bundle.manifest
        self._check_rows(layout.graphs.step, "B", batch)
        together = m.together(layout)
        specs = cache_specs(m.language, layout, m.text_capacity, m.dtype, batch, together)
        with self._open():
            caches = Caches(self.cuda, specs)
            self._made.add(caches)
            return caches

    def prefill(self, layout: Layout, feed: PrefillFeed, caches: Caches) -> PrefillResult:
        """Run prompts and fill the caches in place."""
        scored = layout.schedule.scored
        outputs = ["logits", *stage_names(scored)]
        shortest, _, longest = self.files[layout.graphs.prefill].profiles[0]["S"]
        padded = pad_prompts(feed, shortest, longest).tensors
        logits, *rest = self._run(layout.graphs.prefill, 0, padded, caches, outputs)
        return PrefillResult(logits[:, 0], stage_results(scored, rest))

    def step(self, layout: Layout, feed: StepFeed, caches: Caches) -> np.ndarray:
        """Run new tokens and extend the caches in place -> logits [B, vocabulary]."""
        profile = ONE_TOKEN if feed.input_ids.shape[1] == 1 else MORE_TOKENS
        feed = pad_turns(feed, self.bundle.manifest.text_capacity)
        return self._run(layout.graphs.step, profile, feed.tensors, caches, ["logits"])[0][:, 0]

    def grown(self, layout: Layout, caches: Caches, slots: Sequence[int]) -> Caches:
        """These: they have the full capacity."""
        return caches

    def read_caches(self, caches: Caches) -> dict[str, np.ndarray]:
        """Host copies by name."""
        found = {s.name: np.empty(s.shape, DTYPES[s.dtype].numpy) for s in caches.specs}
        with self._open():
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
        with self._open():
            return caches.window(self.cuda, start, count)

    def copy_caches(self, source: Caches, target: Caches) -> None:
        """Copy rows to as many others, which do not overlap them."""
        with self._open():
            for a, b, size in zip(source.addresses, target.addresses, source.sizes, strict=True):
                self.cuda.copy(b, a, size)

    def write_caches(self, caches: Caches, values: dict[str, np.ndarray]) -> None:
        """Put back what `read_caches` gave of a cache, or its first slots alone."""
        with self._open():
            for spec, address in zip(caches.specs, caches.addresses, strict=True):
                self.cuda.upload(address, filled_up(values[spec.name], spec))
            self.cuda.synchronise()

    def close(self) -> None:
        """Give engines, caches, buffers and the stream back, when the run under way has ended."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for caches in self._made:
                caches.close()
            self._buffers.close()
            if self._workspace is not None:
                self._workspace.close()
            for session in self._sessions.values():
                session.close()
            self._sessions.clear()
            self._opener.close()

    # ---- the work
    def _warm_up(self, layout: Layout) -> None:
        """Run the smallest prompts that the engines take, and one step."""
        prefill = layout.graphs.prefill
        low = self.files[prefill].profiles[0]["B"][0]
        width = self._session(prefill).width("visual_embeds") if layout.images else 0
        prompts, step = smallest_feeds(self.bundle.manifest, layout, low, width)
        caches = self.new_caches(layout, low)
        self.prefill(layout, prompts, caches)
        self.step(layout, step, caches)

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        """A block that has the device to itself, refused once the runner is closed."""
        with self._lock:
            self._check_open()
            yield

    def _run(self, graph: str, profile: int, feed, caches: Caches | None, outputs: list[str]):
        """Upload a feed, run, download outputs; caches stay where they are."""
        with self._open():
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
            self._opener.keep()
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
        good_for = (session, session.epochs[ONE_TOKEN], *self._scratch())
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
        with self._open():
            if graph not in self._sessions:
                with self.bundle.opening(self.files[graph].file) as plan:
                    session = self._opener(plan)
                self._copied[graph] = copied_caches(self.bundle.manifest, graph, session)
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
