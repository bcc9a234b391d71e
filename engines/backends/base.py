"""What a backend is, and what its runners take and give: numpy at the edges, caches in their own memory.

Letters: B batch, S prompt length, T new tokens, V visual tokens, D hidden size, N tiles, n visual
tokens of a tile, G spans of language layers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np

from ..bundle.folder import Bundle
from ..bundle.layout import Layout
from ..bundle.manifest import Range
from ..bundle.tensors import StageResult


@dataclass(frozen=True)
class PrefillFeed:
    """A batch of prompts, right-padded.

    Attributes:
        input_ids: int64 [B, S].
        visual_embeds: [B, V, D], as `vision` gave them; features for deeper layers (DeepStack) lie
            behind them along the last axis. None, like `visual_index`, without images.
        visual_index: int64 [B, V], where the visual tokens stand.
        position_ids: int64 [B, S], or [B, S, 3] for positions in three axes.
        last_index: int64 [B], the last real token of each row.
    """

    input_ids: np.ndarray
    visual_embeds: np.ndarray | None
    visual_index: np.ndarray | None
    position_ids: np.ndarray
    last_index: np.ndarray

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """What the prefill graph takes, by the names of its inputs."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class StepFeed:
    """New tokens for a batch, right-padded.

    Attributes:
        input_ids: int64 [B, T].
        position_ids: int64 [B, T] or [B, T, 3], in the unpruned sequence.
        text_len: int64 [B], text tokens already in the caches.
        last_index: int64 [B], the last real new token of each row.
        visual_len: int64 [B, G], visual tokens of each row in the caches of each span of layers; None for
            graphs that know them (`Manifest.slots` "fixed").
    """

    input_ids: np.ndarray
    position_ids: np.ndarray
    text_len: np.ndarray
    last_index: np.ndarray
    visual_len: np.ndarray | None = None

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """What the step graph takes, by the names of its inputs."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class VisionResult:
    """What a vision graph gives.

    Attributes:
        embeds: visual embeddings [N, n, D].
        joins: of each matched OIM step which tokens it joined (bundle/joins.py), float32 [N, lines, tokens].
        own: PyTorch alone: what it would have joined where it was given another's choice.
        likeness: PyTorch alone: similarity of each token and the one before it.
    """

    embeds: np.ndarray
    joins: tuple[np.ndarray, ...] = ()
    own: tuple[np.ndarray, ...] = ()
    likeness: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class PrefillResult:
    """logits float32 [B, vocabulary] of each row's last token; scored stages by layer."""

    logits: np.ndarray
    stages: dict[int, StageResult] = field(default_factory=dict)


class Runner(Protocol):
    """Runs one bundle's graphs. Caches are opaque: made, filled and read by the same runner.

    A `with` block closes it at its end. All methods of a closed one raise a LuvcError.
    """

    @property
    def description(self) -> str:
        """Library, version and device, for people."""
        ...

    def prepare(self, layout: Layout, vision: bool = True, language: bool = True) -> None:
        """Load what the layout needs, so that the first answer is not slower than the next.

        Args:
            layout: of the prompts.
            vision: its vision graph.
            language: its graphs of the language model; another process may run either part.
        """
        ...

    def vision(self, layout: Layout, pixel_values: np.ndarray) -> np.ndarray:
        """float32 [N, ...], images joined along the first axis -> visual embeddings [N, n, D]."""
        ...

    def vision_result(self, layout: Layout, pixel_values: np.ndarray) -> VisionResult:
        """`vision`, with what its matched OIM steps joined (for validation)."""
        ...

    def new_caches(self, layout: Layout, batch: int, slots: Sequence[int] | None = None) -> Any:
        """Empty key/value buffers for `batch` rows.

        Args:
            layout: of the rows.
            batch: their number.
            slots: that each language layer needs now, where the runner can `grow` caches; default the
                full capacity, which others always take.
        """
        ...

    def prefill(self, layout: Layout, feed: PrefillFeed, caches: Any) -> PrefillResult:
        """Run prompts and fill the caches in place."""
        ...

    def step(self, layout: Layout, feed: StepFeed, caches: Any) -> np.ndarray:
        """Run new tokens, extend the caches in place -> logits float32 [B, vocabulary]."""
        ...

    def grown(self, layout: Layout, caches: Any, slots: Sequence[int]) -> Any:
        """Caches of at least so many slots in each language layer: these, or a larger copy of them."""
        ...

    def read_caches(self, caches: Any) -> dict[str, np.ndarray]:
        """Host copies by name (for validation)."""
        ...

    def close(self) -> None:
        """Give sessions, weights, caches and device memory back at once; harmless when done twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@runtime_checkable
class SharedRunner(Runner, Protocol):
    """A runner whose caches can be shared by conversations that come and go."""

    @property
    def mixes(self) -> bool:
        """Whether rows of all layouts may lie in one batch."""
        ...

    def window(self, caches: Any, start: int, count: int) -> Any:
        """Caches of `count` rows from `start` on, in the same memory.

        Raises:
            LuvcError: this runner cannot begin there.
        """
        ...

    def copy_caches(self, source: Any, target: Any) -> None:
        """Copy rows to as many others, which do not overlap them."""
        ...

    def write_caches(self, caches: Any, values: dict[str, np.ndarray]) -> None:
        """Put back what `read_caches` gave of a cache, or its first slots alone (the third axis)."""
        ...


class Backend(Protocol):
    """A library that runs bundles."""

    @property
    def NAME(self) -> str:
        """As --backend takes it."""
        ...

    def available(self) -> str | None:
        """None, or why this backend cannot be used and how to mend it."""
        ...

    def usable(self, bundle: Bundle) -> str | None:
        """None, or why this bundle cannot be run here."""
        ...

    def runner(self, bundle: Bundle, threads: int = 0) -> SharedRunner:
        """A runner for the bundle.

        Args:
            bundle: a loaded bundle.
            threads: threads inside one operator, where that has a meaning; 0 lets the backend choose.

        Raises:
            LuvcError: this bundle cannot be run here.
        """
        ...


@dataclass(frozen=True)
class BuildOptions:
    """How engines are built.

    Attributes:
        batch: fewest, usual and most conversations in one batch.
        plugin_form: SPU operators as "aot" plugins, as plugins of a C++ "library", or as their
            function "body"; TensorRT-RTX always runs the body.
        plugin_library: the C++ library, for the form "library".
        memory_gib: most device memory one layer may use as scratch; None sets no limit.
        targets: TensorRT-RTX only: architectures such as "sm89"; empty builds a portable engine.
    """

    batch: Range = (1, 1, 8)
    plugin_form: Literal["aot", "library", "body"] = "aot"
    plugin_library: Path | None = None
    memory_gib: float | None = None
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    """One engine of a build; `seconds` is None when it was up to date."""

    graph: str
    file: str
    bytes: int
    seconds: float | None


Progress = Callable[[str, str, float], None]
"""Told how a build goes: graph, phase, share done from 0 to 1."""


def silent(graph: str, phase: str, share: float) -> None:
    """Shows nothing."""


@runtime_checkable
class EngineBuilder(Backend, Protocol):
    """A backend that runs engines, which it builds from a bundle's graphs."""

    def check_machine(self) -> None:
        """Refuse a machine that cannot build engines, before any work is done.

        Raises:
            LuvcError: the library, what it needs, or a GPU is missing.
        """
        ...

    def build(
        self, bundle: Bundle, options: BuildOptions | None = None, progress: Progress = silent
    ) -> tuple[Bundle, list[Built]]:
        """Build what is missing or out of date.

        Args:
            bundle: a loaded bundle; its folder must be writable.
            options: how.
            progress: told how it goes.

        Returns:
            The bundle with its engines listed, and what was done for each graph.

        Raises:
            LuvcError: the bundle's dtype, a graph or the machine does not allow it; names the node.
        """
        ...
