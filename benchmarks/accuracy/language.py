"""The language model for the study: Hugging Face's layers with a pruning rule before some of them.

Letters: B questions, S sequence, V visual tokens, V_l those entering layer l, T tail tokens, D width,
H heads, d head size, k visual tokens kept.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from luvc.plugins.tokens.reference import take_rows

from ..training.packing import IGNORE
from .questions import Group


class Attention(Protocol):
    """What is used of a layer's attention; every family's text model has it."""

    q_proj: torch.nn.Module
    k_proj: torch.nn.Module
    num_key_value_groups: int
    head_dim: int
    scaling: float

    def __call__(
        self,
        *,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Output [B, S, D], and weights that nobody reads."""
        ...


class Layer(Protocol):
    """What is used of a layer."""

    input_layernorm: torch.nn.Module
    self_attn: Attention
    post_attention_layernorm: torch.nn.Module
    mlp: torch.nn.Module


@dataclass
class LayerInput:
    """The sequence before a layer, as a rule sees it.

    Attributes:
        number: of the layer that comes next.
        layer: its module.
        hidden: [B, S, D].
        positions: [B, S].
        visual: places of the visual tokens in the sequence, [B, V_l], ascending.
        last: place of the prompt's last token, [B].
        turned: cos and sin of the rotary embedding at `positions`, [B, S, d].
        memory: what `after` left for later rules; rows follow the visual tokens, [B, V_l].
    """

    number: int
    layer: Layer
    hidden: Tensor
    positions: Tensor
    visual: Tensor
    last: Tensor
    turned: tuple[Tensor, Tensor]
    memory: dict[str, Tensor] = field(default_factory=dict)

    def normed(self) -> Tensor:
        """The next layer's normalised input, [B, S, D]."""
        return self.layer.input_layernorm(self.hidden)

    def of_visual(self, x: Tensor) -> Tensor:
        """Rows of the visual tokens: [B, S, c] -> [B, V_l, c]."""
        return take_rows(x, self.visual)

    def queries(self, rotary: bool) -> Tensor:
        """float32 [B, H, S, d] of the next layer."""
        return self._heads(self.layer.self_attn.q_proj, rotary)

    def keys(self, rotary: bool) -> Tensor:
        """float32 [B, H, S, d]; key heads are repeated for the query heads that share them."""
        keys = self._heads(self.layer.self_attn.k_proj, rotary)
        return keys.repeat_interleave(self.layer.self_attn.num_key_value_groups, 1)

    def _heads(self, projection: torch.nn.Module, rotary: bool) -> Tensor:
        x = projection(self.normed()).unflatten(2, (-1, self.layer.self_attn.head_dim))
        x = x.transpose(1, 2).float()
        if rotary:
            cos, sin = (part[:, None].float() for part in self.turned)
            half = x.shape[-1] // 2
            x = x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin
        return x


@dataclass(frozen=True)
class Kept:
    """What a rule leaves: ordinals [B, k] among the visual tokens, ascending, and new values.

    Attributes:
        ordinals: int64 [B, k].
        values: [B, k, D] in place of the kept rows; None leaves them as they are.
    """

    ordinals: Tensor
    values: Tensor | None = None


Rule = Callable[[LayerInput, int], Kept]
"""(the sequence before a layer, visual tokens to keep) -> what is kept."""
After = Callable[[dict[str, Tensor], Tensor, Tensor, Tensor, Tensor], None]
"""Told (memory, attention input, its output, MLP input, its output), of visual tokens [B, V_l, D]."""


def top(scores: Tensor, keep: int) -> Tensor:
    """Ordinals [B, keep] of the highest scores [B, V], ascending; ties go to the lower position."""
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :keep]
    return best.sort(dim=1).values


def prune(entering: LayerInput, kept: Kept, renumber: bool) -> None:
    """Drop the visual tokens that are not kept from the sequence, in place."""
    B, V = entering.visual.shape
    k, S = kept.ordinals.shape[1], entering.hidden.shape[1]
    stays = torch.zeros(B, V, dtype=torch.bool, device=entering.hidden.device)
    stays.scatter_(1, kept.ordinals, True)
    survives = torch.ones(B, S, dtype=torch.bool, device=entering.hidden.device)
    survives.scatter_(1, entering.visual, stays)
    index = (~survives).byte().argsort(dim=1, stable=True)[:, : S - V + k]
    hidden = entering.hidden
    if kept.values is not None:
        where = entering.visual.gather(1, kept.ordinals)[..., None].expand_as(kept.values)
        hidden = hidden.scatter(1, where, kept.values.to(hidden.dtype))
    place = survives.long().cumsum(1) - 1
    entering.hidden = take_rows(hidden, index)
    entering.positions = entering.positions.gather(1, index)
    if renumber:
        entering.positions = torch.arange(S - V + k, device=index.device).expand(B, -1)
    entering.visual = place.gather(1, entering.visual.gather(1, kept.ordinals))
    entering.last = entering.last - (V - k)
    entering.memory = {name: v.gather(1, kept.ordinals) for name, v in entering.memory.items()}


class Decoder:
    """Prompt and right answer in one pass.

    Args:
        model: InternVLForConditionalGeneration in evaluation mode.
    """

    def __init__(self, model):
        self.text, self.head = model.model.language_model, model.lm_head

    def start(
        self, group: Group, tokens: Tensor, places: Tensor | None = None, span: int = 0
    ) -> LayerInput:
        """The sequence before layer 0.

        Args:
            group: B questions.
            tokens: visual tokens [B, P, V, D].
            places: int64 [B, P, V], the place of each token among all of its picture's, where some
                were left out; None numbers the tokens that are there.
            span: places of a whole picture, where `places` is given.
        """
        embed, device = self.text.embed_tokens, tokens.device
        B, P, V, _ = tokens.shape
        span = V if places is None else span
        parts = []
        positions = []
        visual = []
        at = 0
        place = 0
        for picture in range(P):
            words = group.between if picture else group.head
            parts += [embed(words).expand(B, -1, -1), tokens[:, picture]]
            number = torch.arange(V, device=device).expand(B, -1)
            at, place = at + len(words), place + len(words)
            own = number if places is None else places[:, picture]
            count = torch.arange(place - len(words), place, device=device).expand(B, -1)
            positions += [count, place + own]
            visual.append(at + number)
            at, place = at + V, place + span
        parts.append(embed(group.tail))
        tail = group.tail.shape[1]
        positions.append(torch.arange(place, place + tail, device=device).expand(B, -1))
        hidden = torch.cat([part.to(tokens.dtype) for part in parts], 1)
        position = torch.cat(positions, 1)
        return LayerInput(
            0,
            self.text.layers[0],
            hidden,
            position,
            torch.cat(visual, 1),
            at + group.last,
            self.rotary(hidden, position),
        )

    def rotary(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [B, S, d]."""
        return self.text.rotary_emb(hidden, positions)

    def run(
        self,
        entering: LayerInput,
        rules: Mapping[int, tuple[Rule, int]],
        renumber: bool = False,
        after: After | None = None,
        watch: Callable[[LayerInput], None] | None = None,
    ) -> Tensor:
        """All layers -> hidden states of the sequence that is left, [B, S_L, D].

        Args:
            entering: from `start`.
            rules: by layer, the rule before it and how many visual tokens it keeps.
            renumber: positions count anew after each pruning.
            after: told of each layer's visual tokens.
            watch: shown what enters each layer, after its pruning.
        """
        for number, layer in enumerate(self.text.layers):
            entering.number, entering.layer = number, layer
            if number in rules:
                rule, keep = rules[number]
                nothing = entering.visual[:, :0]
                prune(entering, rule(entering, keep) if keep else Kept(nothing), renumber)
                entering.turned = self.rotary(entering.hidden, entering.positions)
            if watch is not None:
                watch(entering)
            self._layer(entering, after)
        return entering.hidden

    def _layer(self, entering: LayerInput, after: After | None) -> None:
        layer, before = entering.layer, entering.normed()
        attended, _ = layer.self_attn(
            hidden_states=before, position_embeddings=entering.turned, attention_mask=None
        )
        hidden = entering.hidden + attended
        inner = layer.post_attention_layernorm(hidden)
        transformed = layer.mlp(inner)
        if after is not None:
            parts = (before, attended, inner, transformed)
            after(entering.memory, *(entering.of_visual(part) for part in parts))
        entering.hidden = hidden + transformed

    def right(self, hidden: Tensor, group: Group) -> Tensor:
        """Whether each question would be answered exactly, bool [B]."""
        tail = hidden[:, -group.tail.shape[1] :]
        best = self.head(self.text.norm(tail)).argmax(-1)
        return ((best == group.targets) | (group.targets == IGNORE)).all(1)
