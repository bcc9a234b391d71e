"""What every runner takes and gives: plain numpy at the edges, caches in the runner's own memory.

Letters: B batch, S prompt length, T new tokens, V visual tokens, V_l those entering layer l, D hidden
size, k visual tokens kept by a stage, N tiles, n visual tokens of a tile.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..manifest import Layout


@dataclass(frozen=True)
class PrefillFeed:
    """A batch of prompts, right-padded.

    Attributes:
        input_ids: int64 [B, S].
        visual_embeds: [B, V, D], as `vision` gave them.
        visual_index: int64 [B, V], where the visual tokens stand.
        position_ids: int64 [B, S].
        last_index: int64 [B], the last real token of each row.
    """

    input_ids: np.ndarray
    visual_embeds: np.ndarray
    visual_index: np.ndarray
    position_ids: np.ndarray
    last_index: np.ndarray


@dataclass(frozen=True)
class StepFeed:
    """New tokens for a batch, right-padded.

    Attributes:
        input_ids: int64 [B, T].
        position_ids: int64 [B, T], in the unpruned sequence.
        text_len: int64 [B], text tokens already in the caches.
        last_index: int64 [B], the last real new token of each row.
    """

    input_ids: np.ndarray
    position_ids: np.ndarray
    text_len: np.ndarray
    last_index: np.ndarray


@dataclass(frozen=True)
class StageResult:
    """What a scored SPU stage did: energies float32 [B, V_l], kept ordinals int64 [B, k]."""

    energies: np.ndarray
    kept: np.ndarray


@dataclass(frozen=True)
class PrefillResult:
    """logits float32 [B, vocabulary] of each row's last token; scored stages by layer."""

    logits: np.ndarray
    stages: dict[int, StageResult] = field(default_factory=dict)


class Runner(Protocol):
    """Runs one bundle's graphs. Caches are opaque: made, filled and read by the same runner."""

    @property
    def description(self) -> str:
        """Library, version and device, for people."""
        ...

    def prepare(self, layout: Layout) -> None:
        """Load what the layout needs, so that the first answer is not slower than the next."""
        ...

    def vision(self, layout: Layout, pixel_values: np.ndarray) -> np.ndarray:
        """float32 [N, 3, H, W] -> visual embeddings [N, n, D]."""
        ...

    def new_caches(self, layout: Layout, batch: int) -> Any:
        """Empty key/value buffers for `batch` rows."""
        ...

    def prefill(self, layout: Layout, feed: PrefillFeed, caches: Any) -> PrefillResult:
        """Run prompts and fill the caches in place."""
        ...

    def step(self, layout: Layout, feed: StepFeed, caches: Any) -> np.ndarray:
        """Run new tokens, extend the caches in place -> logits float32 [B, vocabulary]."""
        ...

    def read_caches(self, caches: Any) -> list[np.ndarray]:
        """Host copies, key and value of each layer in turn (for validation)."""
        ...


class SharedRunner(Runner, Protocol):
    """A runner whose caches can be shared by conversations that come and go."""

    def window(self, caches: Any, start: int, count: int) -> Any:
        """Caches of `count` rows from `start` on, in the same memory.

        Raises:
            LuvcError: this runner cannot begin there.
        """
        ...

    def copy_caches(self, source: Any, target: Any) -> None:
        """Copy rows to as many others, which do not overlap them."""
        ...

    def write_caches(self, caches: Any, values: list[np.ndarray]) -> None:
        """Put back what `read_caches` gave."""
        ...


def cache_names(layers: Iterable[int]) -> list[str]:
    """Key and value buffers of each layer in turn; a graph's outputs add "_out"."""
    return [f"cache_{kind}_{i}" for i in layers for kind in ("key", "value")]


def cache_shapes(
    layers: int, kv_heads: int, head_dim: int, capacity: int, layout: Layout, batch: int
) -> list[tuple[int, int, int, int]]:
    """[B, H_kv, text capacity + V_l, d], twice for each layer (key, value)."""
    visual = layout.schedule.visual_per_layer(layers, layout.visual_tokens)
    return [(batch, kv_heads, capacity + v, head_dim) for v in visual for _ in ("key", "value")]
