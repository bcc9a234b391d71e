"""Pruned answers by hand: Hugging Face's decoder layers, rows dropped by numpy between them.

No caches: each new token runs the whole conversation again, with masks spelled out from the definition.
Letters: S sequence, V visual tokens, D hidden size.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from . import reference
from .prompts import OVIS_MARKS

NO_MASK = ("conv", "linear_attention")  # layers that only look back
FIRST = {"paligemma": 1}  # position of the first token where it is not 0


@dataclass
class ByHand:
    """One question to one checkpoint, under a schedule of (layer, keep) pairs.

    Attributes:
        model: Hugging Face's model, eager attention.
        given: inputs by its processor.
        prunes: keep of each pruned layer.
        cutoff: share of the spectrum that is scored.
    """

    model: Any
    given: Any
    prunes: dict[int, int]
    cutoff: float

    def __post_init__(self):
        config, self.kept = self.model.config, {}
        self.ids: list[int] = self.given["input_ids"][0].tolist()
        self.prompt = len(self.ids)
        core = self.model.model
        self.text = core.text_model if hasattr(core, "text_model") else core.language_model
        shown = {config.image_token_id}
        if "pixel_values_videos" in self.given:
            shown.add(config.video_token_id)
        self.visual = [i for i, t in enumerate(self.ids) if t in shown]
        self.features = reference.features(self.model, self.given)
        images = len(self.visual) // self.per_image
        self.image = {p: n // self.per_image for n, p in enumerate(self.visual)}
        assert images * self.per_image == len(self.visual)

    @property
    def per_image(self) -> int:
        """Visual tokens of an image; all have the same."""
        sizes = [v for k, v in self.given.items() if k in ("image_sizes", "image_grid_thw")]
        images = len(sizes[0]) if sizes else 1
        return len(self.visual) // images

    def positions(self) -> torch.Tensor:
        """[1, S], or [3, 1, S] by Hugging Face's own rule."""
        S, kind = len(self.ids), self.model.config.model_type
        if not hasattr(self.model.model, "get_rope_index"):
            return torch.arange(S)[None] + FIRST.get(kind, 0)
        ids = torch.tensor([self.ids])
        names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
        grids = {name: self.given[name] for name in names if name in self.given}
        if "video_grid_thw" in grids:
            kinds = self.given["mm_token_type_ids"]
            kinds = torch.cat([kinds, kinds.new_zeros(1, S - self.prompt)], 1)
        else:
            kinds = (ids == self.model.config.image_token_id).int()
        found, _ = self.model.model.get_rope_index(ids, kinds, **grids)
        return found

    def mask(self, alive: list[int], layer: int) -> torch.Tensor:
        """[1, 1, S, S] to add to the scores: who may look at whom."""
        kind = getattr(self.text.config, "layer_types", None)
        window = getattr(self.text.config, "sliding_window", None)
        if kind and kind[layer] != "sliding_attention":
            window = None
        family = self.model.config.model_type
        both = family == "gemma3" or (  # ways, inside an image
            window is not None
            and getattr(self.text.config, "use_bidirectional_attention", None) == "vision"
        )
        seen = np.zeros((len(alive), len(alive)), bool)
        for a, query in enumerate(alive):
            for b, key in enumerate(alive):
                same = query in self.image and self.image.get(query) == self.image.get(key)
                ahead = (both and same) or (family == "paligemma" and max(query, key) < self.prompt)
                near = window is None or query - key < window
                if family == "paligemma":  # the prefix sees itself whole, windows or not
                    seen[a, b] = ahead or (key <= query and near)
                else:
                    seen[a, b] = (ahead or key <= query) and near
        return torch.where(torch.from_numpy(seen), 0.0, -torch.inf)[None, None]

    def keep(self, norm: Any, hidden: torch.Tensor, rows: list[int], count: int) -> list[int]:
        """Which of these rows have the most energy under the low-pass, by numpy's FFT."""
        x, n = norm(hidden)[0, rows].double().numpy(), len(rows)
        spectrum = np.fft.fft(x, axis=0)
        spectrum[np.minimum(np.arange(n), n - np.arange(n)) > int(self.cutoff * n / 2)] = 0
        energy = (np.fft.ifft(spectrum, axis=0).real ** 2).sum(1)
        return np.sort(np.argsort(-energy, kind="stable")[:count]).tolist()

    @torch.no_grad()
    def logits(self) -> torch.Tensor:
        """Of the last token, after all layers."""
        hidden = self.model.get_input_embeddings()(torch.tensor([self.ids])).clone()
        hidden[0, self.visual] = self.features.tokens
        for i, mark in enumerate(getattr(self.model.config, "visual_indicator_token_ids", ())):
            table = self.model.model.visual_embeddings_table.weight  # Ovis2: its last rows
            hidden[0, [n for n, t in enumerate(self.ids) if t == mark]] = table[i - len(OVIS_MARKS)]
        own, shared = self.inputs_of_layers(hidden), {}
        position = self.positions()
        alive = list(range(len(self.ids)))
        visual = self.visual
        deep = list(self.features.taps)
        for i, layer in enumerate(self.text.layers):
            if i in self.prunes:
                norm = (
                    layer.operator_norm
                    if hasattr(layer, "operator_norm")
                    else layer.input_layernorm
                )
                rows = [alive.index(p) for p in visual]
                ordinals = self.keep(norm, hidden, rows, self.prunes[i]) if self.prunes[i] else []
                self.kept[i] = ordinals
                gone = set(visual) - {visual[n] for n in ordinals}
                stay = [n for n, p in enumerate(alive) if p not in gone]
                hidden, position = hidden[:, stay], position[..., stay]
                alive, visual = [alive[n] for n in stay], [visual[n] for n in ordinals]
                deep = [d[ordinals] for d in deep]
                own = None if own is None else own[:, stay]
            beside: dict[str, Any] = {} if own is None else {"per_layer_input": own[:, :, i]}
            if self.model.config.model_type == "gemma4":
                beside["shared_kv_states"] = shared
            hidden = self.layer(i, layer, hidden, position, alive, **beside)
            if deep:
                rows = [alive.index(p) for p in visual]
                hidden[0, rows] += deep.pop(0)
        text = self.text
        norm = text.embedding_norm if hasattr(text, "embedding_norm") else text.norm
        logits = self.model.lm_head(norm(hidden[:, -1:]))[0, 0]
        cap = getattr(text.config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def inputs_of_layers(self, hidden: torch.Tensor) -> torch.Tensor | None:
        """Gemma 4's per-layer inputs [1, S, L, width]; a visual token's are those of padding."""
        if not getattr(self.text, "hidden_size_per_layer_input", 0):
            return None
        pad, image = self.text.config.pad_token_id, self.model.config.image_token_id
        ids = torch.tensor([[pad if t == image else t for t in self.ids]])
        return self.text.project_per_layer_inputs(hidden, self.text.get_per_layer_inputs(ids))

    def layer(self, i, layer, hidden, position, alive, **beside) -> torch.Tensor:
        """One of Hugging Face's layers."""
        kind = (getattr(self.text.config, "layer_types", None) or [None] * (i + 1))[i]
        per_type = hasattr(self.text.rotary_emb, "full_attention_inv_freq")
        turned = self.text.rotary_emb(hidden, position, *([kind] if per_type else []))
        out = layer(
            hidden,
            attention_mask=None if kind in NO_MASK else self.mask(alive, i),
            position_embeddings=turned,
            position_ids=position,
            use_cache=False,
            **beside,
        )
        return (out[0] if isinstance(out, tuple) else out).clone()

    def generate(self, count: int, ends: list[int]) -> list[int]:
        """Greedy tokens."""
        new: list[int] = []
        while len(new) < count and not set(new[-1:]) & set(ends):
            new.append(int(self.logits().argmax()))
            self.ids.append(new[-1])
        return new
