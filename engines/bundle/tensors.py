"""Tensors of a bundle's language graphs that exporter and engines both name: caches, what stages tell.

Letters: B batch, V_l visual tokens entering layer l, D hidden size, H_kv heads of keys and values, d
head size, k visual tokens kept by a stage, G spans of language layers.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .layout import Layout
from .manifest import Dtype, LanguageModel, LayerType, Manifest
from .schedule import stages_of


@dataclass(frozen=True)
class CacheSpec:
    """One cache tensor: an input of the text graphs, and with "_out" behind its name an output."""

    name: str
    shape: tuple[int, ...]
    dtype: Dtype


STATEFUL: dict[str, tuple[str, ...]] = {"conv": ("conv",), "linear": ("conv", "state")}
"""What layers keep in place of keys and values, by their type."""
STATES = tuple(dict.fromkeys(kind for kinds in STATEFUL.values() for kind in kinds))
"""Those kinds of caches, of constant size; all others have slots."""


def cache_names(kinds: Mapping[int, LayerType], windows: Iterable[int] = ()) -> list[str]:
    """Names of the cache tensors of some layers.

    Args:
        kinds: type of each layer, by its index.
        windows: layers that a stage's positions are named after, see `windowed_layers`.
    """
    kept = {i: STATEFUL.get(kind, ("key", "value")) for i, kind in kinds.items()}
    names = [f"cache_{n}_{i}" for i, of in kept.items() for n in of]
    return [*names, *(f"cache_position_{i}" for i in windows)]


def visual_in(layout: Layout, layers: int) -> tuple[int, ...]:
    """V_l of each language layer."""
    return layout.schedule.visual_per_layer(layers, layout.visual_tokens)


def spans_of(layouts: Iterable[Layout], layers: int) -> tuple[int, ...]:
    """First layers of the spans: runs of language layers within which none of the layouts prunes."""
    stages = (stages_of(visual_in(layout, layers)) for layout in layouts)
    return tuple(sorted({stage.first for found in stages for stage in found}))


def span_of(spans: Sequence[int], layer: int) -> int:
    """The span that a layer is in, counted from 0."""
    return bisect_right(spans, layer) - 1


def windowed_layers(
    language: LanguageModel, layouts: Sequence[Layout], capacity: int
) -> tuple[int, ...]:
    """The first sliding layer of each span; empty where the window holds every conversation.

    Its span keeps the positions of the cached tokens: after pruning, a slot no longer tells them.
    """
    longest = max(layout.longest_position(capacity) for layout in layouts)
    if language.window is None or longest < language.window:
        return ()
    starts = spans_of(layouts, language.layers)
    ends = (*(min(s, language.caching) for s in starts[1:]), language.caching)
    spans = (range(first, end) for first, end in zip(starts, ends, strict=True))
    sliding = ([i for i in span if language.layer_types[i] == "sliding"] for span in spans)
    return tuple(layers[0] for layers in sliding if layers)


def slots_symbol(first: int) -> str:
    """The dimension of the graphs that stands for the slots of a span, by its first layer."""
    return f"C{first}"


def visual_lens(manifest: Manifest, layouts: Sequence[Layout]) -> np.ndarray | None:
    """int64 [B, G], visual tokens of each row in each span, where the step graph asks for them.

    Args:
        manifest: of the bundle.
        layouts: of the rows; they share a step graph.
    """
    if manifest.slots == "fixed":
        return None
    layers = manifest.language.layers
    spans = spans_of(manifest.together(layouts[0]), layers)
    visual = [visual_in(layout, layers) for layout in layouts]
    return np.array([[row[first] for first in spans] for row in visual])


def cache_specs(
    language: LanguageModel,
    layout: Layout,
    capacity: int,
    dtype: Dtype,
    batch: int,
    together: Sequence[Layout] = (),
    slots: Sequence[int] | None = None,
) -> list[CacheSpec]:
    """All cache tensors of a layout, in the order of `cache_names`; none of layers that share another's.

    Keys and values are [B, H_kv, C_l, d], a convolution's state [B, D, columns], that of linear
    attention besides float32 [B, H, key size, value size], the positions of a windowed span float32
    [B, 1, C_l, 1].

    Args:
        language: of the manifest.
        layout: whose caches they are.
        capacity: text tokens of a conversation.
        dtype: of keys, values and states.
        batch: B.
        together: the layouts that share its step graph; default itself alone.
        slots: C_l of each layer; default capacity + V_l.
    """
    lm = language
    slots = slots or [capacity + v for v in visual_in(layout, lm.layers)]
    windows = windowed_layers(lm, together or (layout,), capacity)
    specs = []
    for name in cache_names(dict(enumerate(lm.layer_types[: lm.caching])), windows):
        kind, layer = name.split("_")[1:]
        C = slots[int(layer)]
        heads, size = lm.heads(int(layer))
        channels, *state = lm.linear or (lm.hidden,)
        shape = {
            "conv": (batch, channels, lm.conv_state),
            "state": (batch, *state),
            "position": (batch, 1, C, 1),
        }.get(kind, (batch, heads, C, size))
        exact = kind in ("state", "position")
        specs.append(CacheSpec(name, shape, "float32" if exact else dtype))
    return specs


@dataclass(frozen=True)
class StageResult:
    """What a scored SPU stage did: energies float32 [B, V_l], kept ordinals int64 [B, k]."""

    energies: np.ndarray
    kept: np.ndarray


def stage_names(layers: Iterable[int]) -> list[str]:
    """Outputs of a prefill graph that say what the scored stages before these layers did."""
    return [f"{name}_{layer}" for layer in layers for name in ("energies", "kept")]


def stage_results(layers: Iterable[int], found: Sequence[np.ndarray]) -> dict[int, StageResult]:
    """The stages by layer, from the outputs of `stage_names`."""
    pairs = zip(found[::2], found[1::2], strict=True)
    return {layer: StageResult(*pair) for layer, pair in zip(layers, pairs, strict=True)}
