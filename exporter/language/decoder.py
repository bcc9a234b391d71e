"""The decoder loop: Hugging Face's own layers, called one by one, with the SPU between them.

Letters: B batch, S sequence, T new tokens, V visual tokens, V_l those entering layer l, D hidden size.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ...engines.bundle.layout import Layout
from ...engines.bundle.manifest import LanguageModel, LayerType
from ...engines.bundle.schedule import groups_of
from ...engines.bundle.tensors import (
    STATEFUL,
    STATES,
    cache_names,
    slots_symbol,
    span_of,
    spans_of,
    windowed_layers,
)
from ...plugins.scores.base import BEHIND, Heads
from ..ops.attention import heads_of
from ..ops.layer_marks import Run, bordered, runs_of
from ..ops.mirror import mirror
from ..ops.watched import given_and_gave
from ..planning.methods import score_of
from .caches import Buffers, ScatterCache
from .linear import linear_layer
from .rotary import Rotary, Rotations
from .spu import Around, Pair, Pruner, Tokens
from .traits import TextTraits

INDICATOR_TABLE = "model.visual_embeddings_table"  # Ovis2
Shared = dict[str, Pair]  # keys and values [B, H_kv, S, d] by Hugging Face's name of a layer's type


class Decoder(nn.Module):
    """The language half of a Hugging Face VLM, layer by layer.

    Args:
        model: the Hugging Face model; its text model and `lm_head` are registered here under their own
            names.
        traits: of the text model.
        layout: visual tokens, images and schedule.
        language: of the manifest.
        capacity: text tokens of a conversation.
        together: layouts that share the step graph; default this one alone.
    """

    def __init__(
        self,
        model: nn.Module,
        traits: TextTraits,
        layout: Layout,
        language: LanguageModel,
        capacity: int,
        together: Sequence[Layout] = (),
    ):
        super().__init__()
        self.traits, self.layout = traits, layout
        together = together or (layout,)
        names = [traits.path, "lm_head", *([INDICATOR_TABLE] if traits.indicators else ())]
        for name, child in mirror(model, tuple(names)).named_children():
            self.add_module(name, child)
        self.spans = spans_of(together, len(self.text.layers))
        schedule, visual = layout.schedule, layout.visual_tokens
        groups = groups_of(schedule.scope, layout.images, layout.images * layout.tiles)
        self.visual = schedule.visual_per_layer(len(self.text.layers), visual)
        self.slots = [capacity + v for v in self.visual]
        self.layers: Sequence[int] = range(len(self.text.layers))
        self.gaps: frozenset[int] = frozenset()
        self.windows = windowed_layers(language, together, capacity)
        self.window = language.window if self.windows else None
        # constants of the graphs carry this name, so it stays as it was in bundles made before
        self.turn = Rotary(
            self.text.rotary_emb,
            getattr(self.text.config, "rope_parameters", None) or {},
            traits.layer_types,
            traits.position_axes,
        )
        self.score = score_of(schedule.score)
        self.pruners = nn.ModuleDict()
        for prune in schedule.language:
            self.pruners[str(prune.layer)] = Pruner(
                prune.layer, visual, prune.keep, groups, self.score
            )
            visual = prune.keep

    def trace_once(self, alone: bool = False) -> tuple[Run, ...]:
        """Run only the first layer of each kind from now on, and gaps -> the runs to stamp.

        Args:
            alone: run the first layer of every run; nothing stands for another run's.
        """
        breaks = set(self.spans)
        if BEHIND in self.score.reads:
            breaks |= {int(layer) - 1 for layer in self.pruners if int(layer)}
        breaks |= set(
            range(1, self.traits.deepstack + 1)
        )  # features are added behind each of these
        # a convolution reads the sequence's length, which the tracer takes from outside the layer
        types = self.traits.layer_types
        kinds = [
            (self.traits.kind(i), types[i] in STATEFUL and self.slots[i]) for i in range(len(types))
        ]
        runs = runs_of(breaks, f"{self.traits.path}.layers", self.slots, kinds, alone)
        self.layers = [run.first for run in runs]
        self.gaps = frozenset(run.first for run in runs if run.like is not None)
        return runs

    def cache_names(self) -> list[str]:
        """Cache tensors of the layers that run, in the order the graph takes them."""
        types, keep = self.traits.layer_types, self.traits.prompted
        shown = [i for i in self.layers if i not in self.gaps and i < keep]
        kinds: dict[int, LayerType] = {i: types[i] for i in shown}
        return cache_names(kinds, self.windows)

    def slot_symbols(self) -> dict[str, str]:
        """The dimension of slots of every layer's caches, by their names."""
        types = self.traits.layer_types[: self.traits.prompted]
        names = cache_names(dict(enumerate(types)), self.windows)
        kinds = {name: name.split("_")[1] for name in names}
        layers = {n: int(n.split("_")[2]) for n in names if kinds[n] not in STATES}
        return {
            name: slots_symbol(self.spans[span_of(self.spans, layer)])
            for name, layer in layers.items()
        }

    def named_caches(self, caches: Sequence[torch.Tensor]) -> Buffers:
        """Cache inputs by name."""
        return dict(zip(self.cache_names(), caches, strict=True))

    @property
    def text(self) -> Any:
        """The Hugging Face text model."""
        return self.get_submodule(self.traits.path)

    def rotations(self, tokens: Tokens) -> Rotations:
        """cos and sin of the tokens' positions, for each type of layer."""
        positions = tokens.positions[..., : self.traits.position_axes]
        return self.turn(positions, tokens.hidden.dtype)

    def input_norm(self, i: int) -> nn.Module:
        """The norm at the input of a layer."""
        layer = self.text.layers[i]
        return layer.operator_norm if hasattr(layer, "operator_norm") else layer.input_layernorm

    def around(
        self, i: int, tokens: Tokens, rotations: Rotations, last: Callable[[], object] | None = None
    ) -> Around:
        """What the score of the stage before a layer may ask.

        Args:
            i: the layer.
            tokens: before the stage.
            rotations: of the tokens.
            last: runs the layer behind the stage once more.
        """
        layer = self.text.layers[i]

        def heads(rotary: bool) -> Heads:
            cos, sin = rotations[self.traits.layer_types[i]]
            if not rotary:
                cos, sin = torch.ones_like(cos), torch.zeros_like(sin)
            return heads_of(
                lambda: layer(
                    tokens.hidden,
                    attention_mask=None,
                    position_embeddings=(cos, sin),
                    position_ids=tokens.positions[..., 0],  # Ministral 3 scales queries by them
                    **self.own(i, tokens, {}),
                )
            )

        def behind() -> tuple[Pair, Pair]:
            assert last is not None, "nothing stands behind the stage"
            before = self.text.layers[i - 1]
            attended, transformed = given_and_gave((before.self_attn, before.mlp), last)
            return attended, transformed

        return Around(
            normed=lambda: self.input_norm(i)(tokens.hidden),
            heads=heads,
            turned=lambda: next(iter(rotations.values())),
            behind=behind,
        )

    def alone(
        self, i: int, hidden: torch.Tensor, tokens: Tokens, rotations: Rotations, mask
    ) -> object:
        """A layer on hidden states [B, S, D], without a cache; for who watches its parts."""
        return self.text.layers[i](
            hidden,
            attention_mask=mask,
            position_embeddings=rotations.get(self.traits.layer_types[i]),
            position_ids=tokens.positions[..., 0],
            **self.own(i, tokens, {}),
        )

    def own(self, i: int, tokens: Tokens, shared: Shared) -> dict[str, Any]:
        """What only some families' layers take: inputs of their own [B, S, width], shared keys and values."""
        width, found = self.traits.input_width, {}
        if hasattr(getattr(self.text.layers[i], "self_attn", None), "is_kv_shared_layer"):
            found["shared_kv_states"] = shared
        if tokens.inputs is not None:
            found["per_layer_input"] = tokens.inputs[..., i * width : (i + 1) * width]
        return found

    def layer_inputs(self, ids: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor | None:
        """All layers' own inputs [B, S, L * width] of token ids [B, S] and embeddings [B, S, D]."""
        if not self.traits.input_width:
            return None
        text = self.text
        return text.project_per_layer_inputs(hidden, text.get_per_layer_inputs(ids)).flatten(2)

    def layer(
        self,
        i: int,
        tokens: Tokens,
        rotations: Rotations,
        mask,
        cache: ScatterCache,
        shared: Shared,
    ) -> torch.Tensor:
        """One decoder layer: hidden [B, S, D] -> [B, S, D]; keys and values of some stay in `shared`."""
        own, kind = self.own(i, tokens, shared), self.traits.layer_types[i]
        cos, sin = rotations.get(kind, (None, None))

        def run(start, cos, sin, mask, positions, slots, last):
            cache.slots[i], cache.last = slots, last
            if kind == "linear":
                return linear_layer(self.text.layers[i], i, start, cache)
            out = self.text.layers[i](
                start,
                attention_mask=mask,
                position_embeddings=None if cos is None else (cos, sin),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                **own,
            )
            return out[0] if isinstance(out, tuple) else out

        return bordered(
            run,
            i,
            i in self.gaps,
            tokens.hidden,
            cos=cos,
            sin=sin,
            mask=None if kind in STATEFUL else mask,
            positions=tokens.positions[..., 0],
            slots=cache.slots[i],
            last=tokens.last,
        )

    def last_norm(self, hidden: torch.Tensor) -> torch.Tensor:
        """What the head reads of hidden states behind the last layer, [B, S, D] both."""
        text = self.text
        norm = text.embedding_norm if hasattr(text, "embedding_norm") else text.norm
        return norm(hidden)

    def logits(self, tokens: Tokens) -> torch.Tensor:
        """float32 [B, 1, vocabulary] of the last real token of each row."""
        rows = torch.arange(tokens.hidden.shape[0], device=tokens.hidden.device)
        hidden = tokens.hidden[rows, tokens.last][:, None]
        head, cap = self.get_submodule("lm_head"), self.traits.logit_softcap
        logits = head(self.last_norm(hidden)).float()
        return logits if cap is None else cap * torch.tanh(logits / cap)
