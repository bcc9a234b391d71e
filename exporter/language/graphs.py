"""The graphs of a bundle and their tensor names, which are part of the bundle's contract.

Letters: B batch, S prompt length, T new tokens, V visual tokens, P position axes, C_l cache slots of
layer l, H_kv key/value heads, d head size, D hidden size, G spans of layers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ...engines.bundle.layout import Layout
from ...engines.bundle.tensors import STATEFUL, span_of, stage_names
from ..ops.layer_marks import Run
from ..ops.riding import COLUMNS, joined
from ..ops.scatter import scattered
from ..planning.methods import measured_score
from .caches import Buffers, ScatterCache
from .decoder import INDICATOR_TABLE, Decoder, Shared
from .masks import last_mask, prompt_mask, step_mask
from .rotary import Rotations
from .spu import Tokens, add_deepstack
from .traits import PromptMask


@dataclass
class Underway:
    """A prompt between two layers.

    Attributes:
        tokens: as they are there.
        start: zeros [B], the first slot of the caches.
        cache: of all layers.
        rotations: of the tokens.
        masks: of the tokens, for each type of layer.
        shared: keys and values that later layers read, too.
        last: runs the layer behind once more.
        stages: energies [B, V_l] and kept [B, k] of every scored stage so far.
    """

    tokens: Tokens
    start: torch.Tensor
    cache: ScatterCache
    rotations: Rotations
    masks: dict[str, torch.Tensor | None]
    shared: Shared
    last: Callable[[], object] | None = None
    stages: list[torch.Tensor] = field(default_factory=list)


class PrefillGraph(Decoder):
    """A whole prompt: embeds it, runs the layers with the SPU cascade, fills the caches.

    Rows are right-padded; attention is causal without a mask where the family allows it, because no
    real token looks at the padding behind it and the step graph overwrites it.
    """

    inputs = ("input_ids", "visual_embeds", "visual_index", "position_ids", "last_index")

    def output_names(self) -> list[str]:
        """logits, buffers, then energies [B, V_l] and kept [B, k] of every scored stage."""
        caches = [f"{n}_out" for n in self.cache_names()]
        return ["logits", *caches, *stage_names(self.layout.schedule.scored)]

    def forward(
        self,
        input_ids,
        visual_embeds,
        visual_index,
        position_ids,
        last_index,
        *caches,
        forced: Mapping[int, torch.Tensor] | None = None,
    ):
        """One prompt.

        Args:
            input_ids: [B, S] int64, right-padded.
            visual_embeds: [B, V, D], behind them along the last axis features for deeper layers and what
                the score measured in the tower.
            visual_index: [B, V] int64, where the visual tokens stand, ascending.
            position_ids: [B, S] int64, or [B, S, P].
            last_index: [B] int64, the last real token of each row.
            caches: buffers in the order of `cache_names`.
            forced: ordinals [B, k] that the stage before a layer keeps whatever its scores say;
                never traced.
        """
        way = self.begin(
            input_ids,
            visual_embeds,
            visual_index,
            position_ids,
            last_index,
            self.named_caches(caches),
        )
        for i in self.layers:
            self.prune(way, i, (forced or {}).get(i))
            self.advance(way, i)
        return (self.logits(way.tokens), *way.cache.outputs(), *way.stages)

    def begin(
        self, input_ids, visual_embeds, visual_index, position_ids, last_index, buffers: Buffers
    ) -> "Underway":
        """A prompt before its first layer; arguments as `forward`'s, caches by name."""
        tokens = self._embed(input_ids, visual_embeds, visual_index, position_ids, last_index)
        start = torch.zeros_like(last_index)
        cache = ScatterCache(buffers, dict.fromkeys(self.layers, start), fresh=True)
        rotations, masks = self.rotations(tokens), self._masks(tokens)
        return Underway(tokens, start, cache, rotations, masks, Shared())

    def prune(self, way: "Underway", i: int, ordinals: torch.Tensor | None = None) -> None:
        """What leaves the prompt before a layer: by the SPU's stage, or as nobody reads it any more.

        Args:
            way: changed.
            i: the layer.
            ordinals: [B, k] to keep whatever the scores say.
        """
        if i == self.traits.prompted:
            way.masks, way.tokens = self._last_masks(way.tokens), _last_alone(way.tokens)
            way.rotations = self.rotations(way.tokens)
        if str(i) not in self.pruners:
            return
        around = self.around(i, way.tokens, way.rotations, way.last)
        way.tokens, seen = self.pruners[str(i)](way.tokens, around, ordinals)
        way.stages.extend(seen or ())
        way.rotations, way.masks = self.rotations(way.tokens), self._masks(way.tokens)

    def advance(self, way: "Underway", i: int) -> None:
        """Take a prompt through a layer."""
        tokens, mask = way.tokens, way.masks[self.traits.layer_types[i]]
        if i in self.windows:
            positions = tokens.positions[..., 0]
            way.cache.written.update(_write_positions(way.cache.buffers, i, positions, way.start))
        way.last = partial(self.alone, i, tokens.hidden, tokens, way.rotations, mask)
        tokens.hidden = self.layer(i, tokens, way.rotations, mask, way.cache, way.shared)
        add_deepstack(tokens)

    def _embed(self, input_ids, visual_embeds, visual_index, position_ids, last_index) -> Tokens:
        """Text and visual embeddings in one sequence, and what rides along with the tokens."""
        hidden = self.text.embed_tokens(input_ids)
        for i, token in enumerate(self.traits.indicators):
            table: Any = self.get_submodule(INDICATOR_TABLE)
            row = table.weight[i - len(self.traits.indicators)]
            hidden = torch.where((input_ids == token)[..., None], row.to(hidden.dtype), hidden)
        positions = position_ids if self.traits.position_axes > 1 else position_ids[..., None]
        if not self.layout.images:
            own = self.layer_inputs(input_ids, hidden)
            return Tokens(hidden, positions, visual_index, last_index, inputs=own)
        measured = None
        if measured_score(self.layout.schedule) is not None:
            measured = joined(visual_embeds[..., -COLUMNS:])
            visual_embeds = visual_embeds[..., :-COLUMNS]
        embeds, *deep = visual_embeds.to(hidden.dtype).split(hidden.shape[-1], -1)
        rows = torch.arange(hidden.shape[0], device=hidden.device)[:, None]
        hidden = hidden.index_put((rows, visual_index), embeds)
        own = self.layer_inputs(input_ids.scatter(1, visual_index, self.traits.input_pad), hidden)
        if self.traits.mask in ("image", "near-image"):
            size = self.layout.visual_tokens // self.layout.images
            place = torch.arange(self.layout.visual_tokens, device=hidden.device)
            image = (place // size).expand(hidden.shape[0], -1)
            image = torch.full_like(input_ids, -1).scatter(1, visual_index, image)
            positions = torch.cat([positions, image[..., None]], -1)
        return Tokens(hidden, positions, visual_index, last_index, tuple(deep), measured, own)

    def _masks(self, tokens: Tokens) -> dict[str, torch.Tensor | None]:
        """The mask of each type of layer, for the tokens as they are now."""
        mask, place = self.traits.mask, tokens.positions[..., 0]
        if mask in ("image", "near-image") and not self.layout.images:
            mask = "causal"
        image = tokens.positions[..., -1] if mask in ("image", "near-image") else None
        near: PromptMask = "image" if mask == "near-image" else mask
        far: PromptMask = "causal" if mask == "near-image" else mask
        kinds = {"full": (far, None), "sliding": (near, self.window)} | dict.fromkeys(
            STATEFUL, (far, None)
        )
        return {
            kind: prompt_mask(place, image, tokens.last, mask, window)
            for kind, (mask, window) in kinds.items()
        }

    def _last_masks(self, tokens: Tokens) -> dict[str, torch.Tensor | None]:
        """The mask of each type of layer, for each row's last token over the tokens as they are now."""
        place = tokens.positions[..., 0]
        windows = {"full": None, "sliding": self.window}
        return {kind: last_mask(place, tokens.last, window) for kind, window in windows.items()}


class TextPrefillGraph(PrefillGraph):
    """A whole prompt of a layout without images."""

    inputs = ("input_ids", "position_ids", "last_index")

    def forward(self, input_ids, position_ids, last_index, *caches, forced=None):
        """One prompt; arguments as PrefillGraph's."""
        none = input_ids[:, :0]
        return super().forward(
            input_ids, none, none, position_ids, last_index, *caches, forced=forced
        )


def prompt_graph(layout: Layout) -> type[PrefillGraph]:
    """The prefill graph of a layout."""
    return PrefillGraph if layout.images else TextPrefillGraph


class StepGraph(Decoder):
    """New text over filled caches: one token while decoding, a whole turn of text in a chat.

    A new token of layer l goes to slot text_len + V_l, which every row says for itself: rows of several
    layouts run together. A query sees the slots up to its own, so padding and stale slots stay invisible.
    """

    inputs = ("input_ids", "position_ids", "text_len", "last_index", "visual_len")

    def output_names(self) -> list[str]:
        """logits and buffers."""
        return ["logits", *(f"{n}_out" for n in self.cache_names())]

    def trace_once(self, alone: bool = False) -> tuple[Run, ...]:
        """See Decoder; every run has slots of its own number, so none stands for another's."""
        return super().trace_once(alone=True)

    def forward(self, input_ids, position_ids, text_len, last_index, visual_len, *caches):
        """New tokens.

        Args:
            input_ids: [B, T] int64, right-padded.
            position_ids: [B, T] int64 or [B, T, P], positions in the unpruned sequence.
            text_len: [B] int64, text tokens already in the caches.
            last_index: [B] int64, the last real new token of each row.
            visual_len: [B, G] int64, visual tokens of each row in each span of layers.
            caches: buffers in the order of `cache_names`.
        """
        hidden = self.text.embed_tokens(input_ids)
        positions = position_ids if self.traits.position_axes > 1 else position_ids[..., None]
        own, shared = self.layer_inputs(input_ids, hidden), Shared()
        tokens = Tokens(hidden, positions, input_ids[:, :0], last_index, inputs=own)
        buffers = self.named_caches(caches)
        first = [
            text_len + visual for visual in visual_len.unbind(1)
        ]  # slot of the first new token
        span = {i: span_of(self.spans, i) for i in self.layers}
        slots = {i: first[span[i]] for i in self.layers}
        cache = ScatterCache(buffers, slots, fresh=False)
        rotations, masks = self.rotations(tokens), {}
        cached: torch.Tensor | None = None
        for i in self.layers:
            if i in self.windows:
                written = _write_positions(buffers, i, positions[..., 0], slots[i])
                cache.written.update(written)
                cached = written[f"cache_position_{i}"][:, 0, :, 0]
            kind = self.traits.layer_types[i]
            sliding = kind == "sliding" and self.window is not None
            key = span[i], sliding
            if key not in masks and kind not in STATEFUL:
                window = self.window if sliding else None
                masks[key] = step_mask(
                    slots[i],
                    input_ids.shape[1],
                    buffers[f"cache_key_{i}"].shape[2],
                    positions[..., 0],
                    cached,
                    window,
                )
            tokens.hidden = self.layer(i, tokens, rotations, masks.get(key), cache, shared)
        return (self.logits(tokens), *cache.outputs())


def _last_alone(tokens: Tokens) -> Tokens:
    """Each row's last real token: what the layers that keep nothing make of the others, nobody reads."""
    rows = tokens.last[:, None]
    hidden, positions, *inputs = tokens.taken(tokens.hidden, rows)
    none, first = tokens.visual_index[:, :0], torch.zeros_like(tokens.last)
    return Tokens(hidden, positions, none, first, (), None, *inputs)


def _write_positions(buffers: Buffers, layer: int, positions: torch.Tensor, slot) -> Buffers:
    """Write the positions [B, T] of new tokens into a stage's cache of positions."""
    name = f"cache_position_{layer}"
    new = positions[:, None, :, None].to(buffers[name].dtype)
    # no TensorScatter: TensorRT-RTX ends the process where such a cache has one number a slot
    return {name: scattered(buffers[name], new, slot)}
