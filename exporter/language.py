"""The decoder loop: Hugging Face's own layers, called one by one, with the SPU between them.

Letters: B batch, S sequence, T new tokens, V visual tokens, V_l those entering layer l, C_l cache
slots of layer l, D hidden size, H_kv key/value heads, d head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..engines.manifest import Schedule, stages_of
from ..errors import LuvcError
from ..plugins.spectrum import contract, reference
from .cost import DecoderShape
from .stamp import Run, mark

SUPPORTED = ("llama", "qwen2", "qwen3")
# Rotary kinds whose frequencies do not change with the prompt. "dynamic" changes them only beyond
# max_position_embeddings, which the text capacity never reaches.
ROTARY = ("default", "linear", "llama3", "yarn", "dynamic")
MODULES = ("model.language_model", "lm_head")


def check_text_config(text: Any) -> None:
    """Refuse what the loop does not reproduce exactly.

    Raises:
        LuvcError: unsupported text model, rotary kind or layer type; names it and what is supported.
    """
    if text.model_type not in SUPPORTED:
        raise LuvcError(f"text model {text.model_type!r} is not supported: {', '.join(SUPPORTED)}")
    kind = (getattr(text, "rope_parameters", None) or {}).get("rope_type", "default")
    if kind not in ROTARY:
        raise LuvcError(f"rotary positions of kind {kind!r} are not supported: {', '.join(ROTARY)}")
    other = set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
    if other:
        raise LuvcError(
            f"layers of type {', '.join(sorted(other))} are not supported: only full_attention is"
        )


def decoder_shape(text: Any) -> DecoderShape:
    """Widths of a text config for the cost model."""
    return DecoderShape(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        intermediate=text.intermediate_size,
        vocab=text.vocab_size,
    )


@torch.library.custom_op(f"{contract.DOMAIN}::tensor_scatter", mutates_args=())
def tensor_scatter(cache: torch.Tensor, update: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """cache [B, H, C, d] with rows index[b] .. index[b] + T - 1 replaced by update [B, H, T, d]."""
    slots = index[:, None, None, None] + torch.arange(update.shape[2])[None, None, :, None]
    return cache.scatter(2, slots.expand_as(update), update)


@tensor_scatter.register_fake
def _(cache, update, index):
    return torch.empty_like(cache)


class ScatterCache:
    """Fixed-capacity key/value buffers in the form decoder layers expect as `past_key_values`.

    Args:
        buffers: key and value [B, H_kv, C_l, d] of each layer that runs.
        slots: first slot to write, [B], for the same layers.
        fresh: attend to the new keys only (prefill) instead of the whole buffer (step).
    """

    def __init__(self, buffers: "Buffers", slots: dict[int, torch.Tensor], fresh: bool):
        self.buffers, self.slots, self.fresh = buffers, slots, fresh
        self.written: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(self, key: torch.Tensor, value: torch.Tensor, layer: int, *args, **kwargs):
        """Write [B, H_kv, T, d] and return what this call's queries attend to."""
        write, slot = torch.ops.luvc.tensor_scatter, self.slots[layer]
        k, v = (
            write(b, new, slot) for b, new in zip(self.buffers[layer], (key, value), strict=True)
        )
        self.written[layer] = k, v
        return (key, value) if self.fresh else (k, v)

    def outputs(self) -> tuple[torch.Tensor, ...]:
        """Buffers after this call, key and value of each layer in turn."""
        return tuple(t for layer in sorted(self.written) for t in self.written[layer])


Buffers = dict[int, tuple[torch.Tensor, torch.Tensor]]


@dataclass
class Tokens:
    """The sequence on its way through the layers.

    Attributes:
        hidden: [B, S, D].
        positions: original position ids, [B, S, 1]; kept through every prune.
        visual_index: positions of the visual tokens in the sequence, [B, V_l].
        last: index of the last real token of each row, [B].
    """

    hidden: torch.Tensor
    positions: torch.Tensor
    visual_index: torch.Tensor
    last: torch.Tensor


class Pruner(nn.Module):
    """One SPU stage before a layer: V visual tokens -> keep.

    Args:
        visual: V, those entering the stage.
        keep: k; 0 leaves all visual rows out without scoring.
        groups: equal runs that are scored apart (1 for the whole prompt).
        schedule: cutoff and signal.
    """

    def __init__(self, visual: int, keep: int, groups: int, schedule: Schedule):
        super().__init__()
        length = visual // groups
        self.visual, self.keep, self.groups = visual, keep, groups
        self.cutoff = contract.cutoff_bin(schedule.cutoff, length)
        self.normed = schedule.signal == "normed"
        self.forced: torch.Tensor | None = None  # ordinals [B, k] to keep whatever the scores say
        self.register_buffer("twiddle", reference.twiddle(length), persistent=False)

    def forward(self, tokens: Tokens, norm: nn.Module):
        """Returns the shortened tokens, and (energies [B, V], kept [B, k]) when scored."""
        ops = torch.ops.luvc
        if not self.keep:
            keep_index = text_positions(tokens)
            visual_index, seen = tokens.visual_index[:, :0], None
        else:
            signal = norm(tokens.hidden) if self.normed else tokens.hidden
            energies = ops.spectrum_score(
                signal, tokens.visual_index, self.twiddle, self.cutoff, self.groups
            )
            keep_index, visual_index, kept = ops.spectrum_select(
                energies, tokens.visual_index, tokens.positions, self.keep, self.groups
            )
            seen = energies.sum(1), kept
            if self.forced is not None:
                keep_index, visual_index = reference.indices_of(
                    self.forced, tokens.visual_index, tokens.positions.shape[1]
                )
        hidden, positions = ops.gather_tokens(tokens.hidden, tokens.positions, keep_index)
        last = tokens.last - (self.visual - self.keep)  # visual tokens precede the last token
        return Tokens(hidden, positions, visual_index, last), seen


def text_positions(tokens: Tokens) -> torch.Tensor:
    """Positions of all tokens that are not visual, [B, S - V], ascending.

    A stable partition by cumulative sums: TensorRT's TopK ends at 3840 tokens.
    """
    B, S, _ = tokens.positions.shape
    V = tokens.visual_index.shape[1]
    place = torch.arange(S)[None].expand(B, -1)
    visual = torch.zeros(B, S, dtype=torch.long).scatter(1, tokens.visual_index, 1)
    seen = torch.cumsum(visual, 1)
    slot = torch.where(visual == 1, S - V + seen - 1, place - seen)
    return torch.zeros(B, S, dtype=torch.long).scatter(1, slot, place)[:, : S - V]


class Decoder(nn.Module):
    """The language half of a Hugging Face VLM, layer by layer.

    Args:
        model: the Hugging Face model; its `model.language_model` and `lm_head` are registered here
            under those names.
        visual: V at the input.
        images: images in a prompt, for per-image scoring.
        schedule: where and how visual tokens are pruned.
    """

    def __init__(self, model: nn.Module, visual: int, images: int, schedule: Schedule):
        super().__init__()
        self.model = nn.Module()
        self.model.language_model = model.get_submodule("model.language_model")
        self.lm_head = model.get_submodule("lm_head")
        groups = images if schedule.scope == "image" else 1
        self.visual = schedule.visual_per_layer(len(self.text.layers), visual)
        self.layers: Sequence[int] = range(len(self.text.layers))
        self.pruners = nn.ModuleDict()
        for prune in schedule.language:
            self.pruners[str(prune.layer)] = Pruner(visual, prune.keep, groups, schedule)
            visual = prune.keep

    def trace_once(self) -> tuple[Run, ...]:
        """Run only the first layer of each stage from now on -> the runs to stamp (stamp.py)."""
        stages = stages_of(self.visual)
        self.layers = [s.first for s in stages]
        return tuple(Run(s.first, s.last, f"{MODULES[0]}.layers") for s in stages)

    def cache_buffers(self, caches: Sequence[torch.Tensor]) -> Buffers:
        """Key and value by layer, from the graph's cache inputs."""
        return dict(zip(self.layers, zip(caches[::2], caches[1::2], strict=True), strict=True))

    @property
    def text(self) -> Any:
        """The Hugging Face text model."""
        return self.model.language_model

    def rotary(self, hidden: torch.Tensor, positions: torch.Tensor):
        """cos and sin [B, S, d] for positions [B, S, 1].

        The frequencies are constants here (see ROTARY), so Hugging Face's own forward, which may
        recompute them from the longest position, is not traced.
        """
        r = self.text.rotary_emb
        angle = positions.float() * r.inv_freq.float()[None, None]
        angle = torch.cat([angle, angle], -1)
        scale = r.attention_scaling
        return (angle.cos() * scale).to(hidden.dtype), (angle.sin() * scale).to(hidden.dtype)

    def layer(self, i: int, tokens: Tokens, rotary, mask, cache: ScatterCache) -> torch.Tensor:
        """One decoder layer: hidden [B, S, D] -> [B, S, D]."""
        out = self.text.layers[i](
            mark(tokens.hidden, i, end=False), attention_mask=mask, position_embeddings=rotary,
            position_ids=tokens.positions[..., 0], past_key_values=cache, use_cache=True,
        )  # fmt: skip
        return mark(out[0] if isinstance(out, tuple) else out, i, end=True)

    def logits(self, tokens: Tokens) -> torch.Tensor:
        """float32 [B, 1, vocabulary] of the last real token of each row."""
        rows = torch.arange(tokens.hidden.shape[0])
        hidden = tokens.hidden[rows, tokens.last][:, None]
        return self.lm_head(self.text.norm(hidden)).float()
