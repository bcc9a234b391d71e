"""Tensors of a bundle's language graphs that exporter and engines both name: caches, what stages tell.

Letters: B batch, V_l visual tokens entering layer l, D hidden size, H_kv heads of keys and values, d
head size, k visual tokens kept by a stage.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .layout import Layout
from .manifest import Dtype, LanguageModel, LayerType


@dataclass(frozen=True)
class CacheSpec:
    """One cache tensor: an input of the text graphs, and with "_out" behind its name an output."""

    name: str
    shape: tuple[int, ...]
    dtype: Dtype


def cache_names(kinds: Mapping[int, LayerType], windows: Iterable[int] = ()) -> list[str]:
    """Names of the cache tensors of some layers.

    Args:
        kinds: type of each layer, by its index.
        windows: layers that a stage's positions are named after, see `windowed_layers`.
    """
    of = {"conv": ("conv",)}
    names = [f"cache_{n}_{i}" for i, kind in kinds.items() for n in of.get(kind, ("key", "value"))]
    return [*names, *(f"cache_position_{i}" for i in windows)]


def windowed_layers(language: LanguageModel, layout: Layout, capacity: int) -> tuple[int, ...]:
    """The first sliding layer of each stage; empty where the window holds every conversation.

    Its stage keeps the positions of the cached tokens: after pruning, a slot no longer tells them.
    """
    if language.window is None or layout.longest_position(capacity) < language.window:
        return ()
    stages = (list(range(s.first, s.last + 1)) for s in layout.stages)
    sliding = ([i for i in stage if language.layer_types[i] == "sliding"] for stage in stages)
    return tuple(layers[0] for layers in sliding if layers)


def cache_specs(
    language: LanguageModel, layout: Layout, capacity: int, dtype: Dtype, batch: int
) -> list[CacheSpec]:
    """All cache tensors of a layout, in the order of `cache_names`.

    Keys and values are [B, H_kv, text capacity + V_l, d], a convolution's state [B, D, columns], the
    positions of a windowed stage float32 [B, 1, text capacity + V_l, 1].
    """
    lm, visual = language, layout.schedule.visual_per_layer(language.layers, layout.visual_tokens)
    windows = windowed_layers(lm, layout, capacity)
    specs = []
    for name in cache_names(dict(enumerate(lm.layer_types)), windows):
        kind, layer = name.split("_")[1:]
        slots = capacity + visual[int(layer)]
        shape = {
            "conv": (batch, lm.hidden, lm.conv_state),
            "position": (batch, 1, slots, 1),
        }.get(kind, (batch, lm.kv_heads, slots, lm.head_dim))
        specs.append(CacheSpec(name, shape, "float32" if kind == "position" else dtype))
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
