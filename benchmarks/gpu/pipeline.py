"""Two sides of a comparison, each with vision, prefill and decoding as calls that can be timed.

`Product` runs the exporter's own graph modules at one ratio, `HuggingFace` the unmodified forward.
Letters: B batch, S prompt length, V visual tokens.
"""

from contextlib import contextmanager
from typing import Any

import torch

from luvc.engines.bundle.layout import Layout
from luvc.engines.bundle.tensors import visual_in
from luvc.exporter.check.torch_runner import TorchRunner
from luvc.exporter.language.graphs import PrefillGraph, StepGraph
from luvc.exporter.language.spu import Tokens
from luvc.exporter.ops.attention import NAME
from luvc.exporter.vision.graph import VisionGraph

from .shapes import TEXT, Prompts


class Product:
    """One ratio and batch size; what it reads and writes stays where it is, for CUDA graphs.

    Args:
        runner: the model on the device.
        layout: at the ratio.
        pixels: float32 [B * tiles, ...], shared by all ratios.
        prompts: input sets.
    """

    def __init__(
        self, runner: TorchRunner, layout: Layout, pixels: torch.Tensor, prompts: list[Prompts]
    ):
        self.runner = runner
        self.layout = layout
        self.pixels = pixels
        self._sets = prompts
        self.prompts = Prompts(**{k: v.clone() for k, v in vars(prompts[0]).items()})
        B = len(prompts[0].input_ids)
        self.caches = runner.new_caches(layout, B)
        D, deep = runner.family.decoder.hidden, runner.family.traits.deepstack
        like: Any = {"device": runner.device, "dtype": runner.dtype}
        self.embeds = torch.zeros(B, layout.visual_tokens, D * (1 + deep), **like)
        self._vision = runner.graph(VisionGraph, layout)
        self._prefill = runner.graph(PrefillGraph, layout)
        self._step = runner.graph(StepGraph, layout)
        self._text_len = torch.full((B,), TEXT, device=runner.device)
        seen = visual_in(layout, runner.family.decoder.layers)
        visual = [seen[i] for i in self._step.spans]
        self._visual_len = torch.tensor([visual] * B, device=runner.device)
        self._token = self.prompts.input_ids[:, -1:].clone()
        self._hidden = torch.randn(*self.prompts.input_ids.shape, D, **like)

    def load(self, n: int) -> None:
        """Take input set n."""
        self.prompts.input_ids.copy_(self._sets[n % len(self._sets)].input_ids)

    @torch.inference_mode()
    def vision(self) -> None:
        """Pixels to visual embeddings."""
        self.embeds.copy_(self._vision(self.pixels).reshape(self.embeds.shape))

    @torch.inference_mode()
    def prefill(self) -> torch.Tensor:
        """Prompts to logits [B, 1, vocabulary]; fills the caches."""
        p = self.prompts
        feed = p.input_ids, self.embeds, p.visual_index, p.position_ids, p.last_index
        return self._prefill(*feed, *self.caches.values())[0]

    @torch.inference_mode()
    def decode(self) -> torch.Tensor:
        """One token after the prompt; always the same one, so that it can be repeated."""
        feed = self._token, self.prompts.next_position, self._text_len, self._token[:, 0] * 0
        return self._step(*feed, self._visual_len, *self.caches.values())[0]

    @torch.inference_mode()
    def spu(self) -> None:
        """All SPU stages one after the other, without the layers between them."""
        graph, p = self._prefill, self.prompts
        positions = p.position_ids if p.position_ids.dim() == 3 else p.position_ids[..., None]
        tokens = Tokens(self._hidden, positions, p.visual_index, p.last_index)
        rotations = graph.rotations(tokens)
        for layer, pruner in graph.pruners.items():
            tokens, _ = pruner(tokens, graph.around(int(layer), tokens, rotations))
            rotations = graph.rotations(tokens)

    @property
    def kv_bytes(self) -> int:
        """Bytes of the key/value buffers of all rows, on the device."""
        return sum(c.nbytes for c in self.caches.values())


class HuggingFace:
    """The unmodified model at ratio 1, eager, with sdpa.

    Args:
        runner: whose model it is.
        layout: at ratio 1.
        pixels: as the product takes them.
        prompts: of the product at ratio 1.
        embeds: visual embeddings [B, V, D] for `prefill`.
    """

    def __init__(
        self,
        runner: TorchRunner,
        layout: Layout,
        pixels: torch.Tensor,
        prompts: Prompts,
        embeds: torch.Tensor,
    ):
        self.model = runner.model
        self.prompts = prompts
        self.cache = None
        B, axes = len(prompts.input_ids), runner.family.traits.position_axes
        self._pixels: dict[str, Any] = {"pixel_values": pixels}
        self._place, self._next = {}, {}
        if axes == 3:  # Qwen-VL: patches of all pictures in one row, their grids beside them
            grid = torch.tensor([[1, *layout.grid]] * B, device=runner.device)
            self._pixels = {"pixel_values": pixels.flatten(0, 1), "image_grid_thw": grid}
            self._place = {"position_ids": prompts.position_ids.movedim(-1, 0)}
            self._next = {"position_ids": prompts.next_position.movedim(-1, 0)}
        with torch.inference_mode():
            table = self.model.get_input_embeddings()
            self._embeds = table(prompts.input_ids)
            rows = torch.arange(B, device=runner.device)[:, None]
            self._embeds[rows, prompts.visual_index] = embeds

    @torch.inference_mode()
    def first_token(self) -> torch.Tensor:
        """Vision and prefill in one forward -> logits [B, 1, vocabulary]."""
        return self._forward(input_ids=self.prompts.input_ids, **self._pixels, **self._place)

    @torch.inference_mode()
    def vision(self) -> None:
        """Vision tower and projector."""
        self.model.model.get_image_features(**self._pixels)

    @torch.inference_mode()
    def prefill(self) -> torch.Tensor:
        """The language model alone -> logits; keeps its cache."""
        return self._forward(inputs_embeds=self._embeds, **self._place)

    @torch.inference_mode()
    def decode(self) -> torch.Tensor:
        """One token after `prefill`; the cache forgets it again."""
        cache: Any = self.cache
        token = self.prompts.input_ids[:, -1:]
        logits = self._forward(input_ids=token, past_key_values=cache, **self._next)
        cache.crop(-1)
        return logits

    def _forward(self, **inputs: Any) -> torch.Tensor:
        found = self.model(**inputs, use_cache=True, logits_to_keep=1)
        self.cache = found.past_key_values
        return found.logits

    @property
    def kv_bytes(self) -> int:
        """Bytes of its cache."""
        layers: Any = self.cache.layers if self.cache is not None else []
        return sum(t.nbytes for layer in layers for t in (layer.keys, layer.values))


@contextmanager
def sdpa(model: Any):
    """Hugging Face's own attention inside, the exporter's afterwards."""
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(NAME)
