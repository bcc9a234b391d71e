"""The bundle's stages in PyTorch, in float32: what every backend is validated against."""

from typing import Any

import numpy as np
import torch
from torch import nn

from ..engines.backends.base import PrefillFeed, PrefillResult, StageResult, StepFeed, cache_specs
from ..engines.manifest import Layout
from .attention import NAME
from .family import Family
from .graphs import PrefillGraph, StepGraph
from .vision.graph import VisionGraph


class TorchRunner:
    """The same verbs as a backend's runner, on the graph modules themselves.

    Args:
        model: the Hugging Face model, with the weights rounded to the bundle's dtype; it is
            converted to float32 here.
        family: of the model.
        text_capacity: of the bundle.
    """

    def __init__(self, model: nn.Module, family: Family, text_capacity: int):
        self.model: Any = model.float().eval()
        self.model.set_attn_implementation(NAME)
        self.family, self.text_capacity = family, text_capacity

    @property
    def description(self) -> str:
        """For people."""
        return f"PyTorch {torch.__version__} float32"

    def prepare(self, layout: Layout) -> None:
        """Nothing to load: the model is there."""

    def vision(self, layout: Layout, pixel_values: np.ndarray) -> np.ndarray:
        """float32 [N, ...] -> visual embeddings [N, n, D]."""
        graph = VisionGraph(self.model, self.family.adapter, layout)
        with torch.inference_mode():
            return graph(torch.from_numpy(pixel_values)).numpy()

    def new_caches(self, layout: Layout, batch: int) -> dict[str, torch.Tensor]:
        """Zeroed buffers by name."""
        specs = cache_specs(self.family.language, layout, self.text_capacity, "float32", batch)
        return {s.name: torch.zeros(s.shape) for s in specs}

    def prefill(
        self,
        layout: Layout,
        feed: PrefillFeed,
        caches: dict[str, torch.Tensor],
        kept: dict[int, np.ndarray] | None = None,
    ) -> PrefillResult:
        """Run prompts and fill the caches in place.

        Args:
            layout: the layout.
            feed: the prompts.
            caches: buffers.
            kept: ordinals [B, k] to go on with after each scored stage, so that a run can be
                compared with another one's; the result still tells what this one would keep.
        """
        graph = self._graph(PrefillGraph, layout)
        for layer, ordinals in (kept or {}).items():
            graph.pruners[str(layer)].forced = torch.from_numpy(ordinals)
        logits, *rest = self._run(graph, feed, caches)
        stages = {
            layer: StageResult(rest[2 * i].numpy(), rest[2 * i + 1].numpy())
            for i, layer in enumerate(graph.scored)
        }
        return PrefillResult(logits[:, 0].numpy(), stages)

    def step(self, layout: Layout, feed: StepFeed, caches: dict[str, torch.Tensor]) -> np.ndarray:
        """Run new tokens and extend the caches in place -> logits [B, vocabulary]."""
        graph = self._graph(StepGraph, layout)
        return self._run(graph, feed, caches)[0][:, 0].numpy()

    def read_caches(self, caches: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """Host views."""
        return {name: cache.numpy() for name, cache in caches.items()}

    def _graph(self, kind, layout: Layout):
        family = self.family
        return kind(self.model, family.traits, layout, family.language, self.text_capacity)

    def _run(self, graph, feed, caches: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        args = [torch.from_numpy(np.asarray(getattr(feed, name))) for name in graph.inputs]
        with torch.inference_mode():
            logits, *rest = graph(*args, *caches.values())
        caches.update(zip(caches, rest, strict=False))
        return [logits, *rest[len(caches) :]]
