"""Cache buffers in host memory: the rows of a part of them, and more slots when they are needed."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ....errors import LuvcError
from ...bundle.manifest import Manifest
from ...bundle.tensors import STATES, CacheSpec, slots_symbol, span_of, spans_of

SLOTS = 64
"""Caches have multiples of it; each length is a copy of them once."""
GROWTH = 110
"""Per cent of its slots that a cache has after it has grown, at least: so few copies that none is felt."""


def free_slots(model: Any, manifest: Manifest) -> None:
    """Let a graph of language take caches of any length; what it computes follows them already.

    Given: caches [B, H_kv, 320, d]
    Result: caches [B, H_kv, C0, d], a symbol for the layers of a span

    Args:
        model: a graph of a bundle whose slots are "free", changed in place.
        manifest: of the bundle.
    """
    spans = spans_of(manifest.layouts, manifest.language.layers)
    for value in (*model.graph.input, *model.graph.output):
        match value.name.removesuffix("_out").split("_"):
            case ["cache", "key" | "value" | "position", layer]:
                symbol = slots_symbol(spans[span_of(spans, int(layer))])
                value.type.tensor_type.shape.dim[2].dim_param = symbol


class Caches:
    """Buffers of a batch by name, as arrays on the host and as ONNX Runtime's values.

    On the CPU both are the same memory, so that a part of the arrays makes caches of fewer rows.

    Args:
        arrays: contiguous, rows first, by name.
        device: "cpu" or "cuda".
    """

    def __init__(self, arrays: dict[str, np.ndarray], device: str):
        import onnxruntime

        make = onnxruntime.OrtValue.ortvalue_from_numpy
        self.values = {name: make(a, device, 0) for name, a in arrays.items()}
        self._arrays = arrays if device == "cpu" else None

    @property
    def host(self) -> dict[str, np.ndarray]:
        """The buffers as arrays, by name.

        Raises:
            LuvcError: they lie on a GPU.
        """
        if self._arrays is None:
            raise LuvcError(
                "ONNX Runtime's CUDA provider cannot share caches between requests: build engines "
                "(luvc-build --backend tensorrt), or install onnxruntime without -gpu"
            )
        return self._arrays

    def hold(self, slots: Sequence[int]) -> bool:
        """Whether each language layer has so many slots at least."""
        kinds = ((name.split("_")[1:], array) for name, array in self.host.items())
        return all(
            array.shape[2] >= slots[int(layer)]
            for (kind, layer), array in kinds
            if kind not in STATES
        )

    def close(self) -> None:
        """Give the memory back, or this part's share of it."""
        self.values, self._arrays = {}, None


def rounded(slots: int) -> int:
    """A number of slots that caches have."""
    return -(-slots // SLOTS) * SLOTS


def grown(
    arrays: dict[str, np.ndarray], wanted: Sequence[CacheSpec]
) -> dict[str, np.ndarray] | None:
    """The buffers with at least the slots (the third axis) of some specs; None where they have them.

    What is large enough stays the same memory. Steps attend over all slots that there are, so there are few
    more than needed.
    """
    if all(s.shape[2] <= arrays[s.name].shape[2] for s in wanted):
        return None
    found = dict(arrays)
    for s in wanted:
        old = arrays[s.name]
        have = old.shape[2]
        if s.shape[2] > have:
            slots = rounded(max(s.shape[2], have * GROWTH // 100))
            found[s.name] = np.zeros((*old.shape[:2], slots, *old.shape[3:]), old.dtype)
            found[s.name][:, :, :have] = old
    return found


@contextlib.contextmanager
def fitting() -> Iterator[None]:
    """What the system refuses for caches is said with its mend."""
    try:
        yield
    except MemoryError as e:
        raise LuvcError(
            f"the caches do not fit into memory ({e}): serve fewer rows, ask for shorter answers, or export "
            "with a smaller --text-capacity"
        ) from e
