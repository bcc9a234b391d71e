"""The graphs of a bundle and their tensor names, which are part of the bundle's contract.

Letters: B batch, S prompt length, T new tokens, V visual tokens, C_l cache slots of layer l, L layers,
H_kv key/value heads, d head size, N tiles.
"""

import torch

from ..engines.backends.base import cache_names
from .language import Buffers, Decoder, ScatterCache, Tokens


class PrefillGraph(Decoder):
    """A whole prompt: embeds it, runs the layers with the SPU cascade, fills the caches.

    Rows are right-padded; attention is causal without a mask, because no real token looks at the
    padding behind it and the step graph overwrites it.
    """

    inputs = ("input_ids", "visual_embeds", "visual_index", "position_ids", "last_index")

    @property
    def scored(self) -> list[int]:
        """Layers whose SPU stage scores (keep > 0)."""
        return [int(i) for i, p in self.pruners.items() if p.keep]

    def output_names(self) -> list[str]:
        """logits, buffers, then energies [B, V_l] and kept [B, k] of every scored stage."""
        caches = [f"{n}_out" for n in cache_names(self.layers)]
        stages = [f"{n}_{i}" for i in self.scored for n in ("energies", "kept")]
        return ["logits", *caches, *stages]

    def forward(self, input_ids, visual_embeds, visual_index, position_ids, last_index, *caches):
        """One prompt.

        Args:
            input_ids: [B, S] int64, right-padded.
            visual_embeds: [B, V, D].
            visual_index: [B, V] int64, where the visual tokens stand, ascending.
            position_ids: [B, S] int64.
            last_index: [B] int64, the last real token of each row.
            caches: key and value buffers [B, H_kv, C_l, d] of each layer.
        """
        hidden = self.text.embed_tokens(input_ids)
        rows = torch.arange(hidden.shape[0])[:, None]
        hidden = hidden.index_put((rows, visual_index), visual_embeds.to(hidden.dtype))
        tokens = Tokens(hidden, position_ids[..., None], visual_index, last_index)
        start = torch.zeros_like(last_index)
        cache = ScatterCache(
            self.cache_buffers(caches), dict.fromkeys(self.layers, start), fresh=True
        )
        rotary, stages = self.rotary(hidden, tokens.positions), []
        for i in self.layers:
            if str(i) in self.pruners:
                norm = self.text.layers[i].input_layernorm
                tokens, seen = self.pruners[str(i)](tokens, norm)
                stages.extend(seen or ())
                rotary = self.rotary(tokens.hidden, tokens.positions)
            tokens.hidden = self.layer(i, tokens, rotary, None, cache)
        return (self.logits(tokens), *cache.outputs(), *stages)


class StepGraph(Decoder):
    """New text over filled caches: one token while decoding, a whole turn of text in a chat.

    A new token of layer l goes to slot text_len + V_l; a query sees the slots up to its own, so
    padding and stale slots stay invisible.
    """

    inputs = ("input_ids", "position_ids", "text_len", "last_index")

    def output_names(self) -> list[str]:
        """logits and buffers."""
        return ["logits", *(f"{n}_out" for n in cache_names(self.layers))]

    def forward(self, input_ids, position_ids, text_len, last_index, *caches):
        """New tokens.

        Args:
            input_ids: [B, T] int64, right-padded.
            position_ids: [B, T] int64, positions in the unpruned sequence.
            text_len: [B] int64, text tokens already in the caches.
            last_index: [B] int64, the last real new token of each row.
            caches: key and value buffers [B, H_kv, C_l, d] of each layer.
        """
        hidden = self.text.embed_tokens(input_ids)
        empty = position_ids[:, :0]
        tokens = Tokens(hidden, position_ids[..., None], empty, last_index)
        buffers = self.cache_buffers(caches)
        slots, masks = self._slots_and_masks(text_len, input_ids.shape[1], buffers)
        cache = ScatterCache(buffers, slots, fresh=False)
        rotary = self.rotary(hidden, tokens.positions)
        for i in self.layers:
            tokens.hidden = self.layer(i, tokens, rotary, masks[i], cache)
        return (self.logits(tokens), *cache.outputs())

    def _slots_and_masks(self, text_len: torch.Tensor, T: int, buffers: Buffers):
        """Slot [B] and mask [B, 1, T, C_l] of each layer; layers of equal V_l share them."""
        shared, slots, masks = {}, {}, {}
        for i, (key, _) in buffers.items():
            visual = self.visual[i]
            if visual not in shared:
                slot = text_len + visual
                query = slot[:, None, None, None] + torch.arange(T)[None, None, :, None]
                shared[visual] = slot, torch.arange(key.shape[2])[None, None, None] <= query
            slots[i], masks[i] = shared[visual]
        return slots, masks
