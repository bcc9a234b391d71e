"""The bundle's stages in PyTorch: in float32 on the CPU, what every backend is validated against."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ...dtypes import DTYPES
from ...engines.backends.base import PrefillFeed, PrefillResult, StepFeed, VisionResult
from ...engines.bundle.layout import Layout
from ...engines.bundle.tensors import cache_specs, stage_results, visual_in
from ...engines.closing import Closing
from ...plugins import cuda
from ..checkpoint.family import Family
from ..language.graphs import StepGraph, prompt_graph
from ..ops.attention import NAME
from ..vision.graph import VisionGraph
from .streamed import is_streamed


class TorchRunner(Closing):
    """The same verbs as a backend's runner, on the graph modules themselves.

    Args:
        model: the Hugging Face model, with the weights rounded to the bundle's dtype; it is
            converted here, in place, but for one that `streamed.stream` prepared.
        family: of the model.
        text_capacity: of the bundle.
        device: where to run. On "cuda" the SPU runs its CUDA kernels where NVRTC is installed.
        dtype: of weights, caches and computation.
    """

    def __init__(
        self,
        model: nn.Module,
        family: Family,
        text_capacity: int,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.device, self.dtype = torch.device(device), dtype
        ready = model if is_streamed(model) else convert(model, self.device, dtype)
        self.model: Any = ready.eval()
        self.model.set_attn_implementation(NAME)
        self.family, self.text_capacity = family, text_capacity
        self.spu = cuda.register() if self.device.type == "cuda" else "SPU in PyTorch"
        self._graphs: dict[type, list[tuple[Layout, Any]]] = {}

    @property
    def description(self) -> str:
        """For people."""
        name = str(self.dtype).removeprefix("torch.")
        if self.device.type == "cpu":
            return f"PyTorch {torch.__version__} {name}"
        where = torch.cuda.get_device_name(self.device)
        return f"PyTorch {torch.__version__} {name} on {where}, {self.spu}"

    def prepare(self, layout: Layout, vision: bool = True, language: bool = True) -> None:
        """Build the layout's graphs."""
        if vision and layout.images:
            self.graph(VisionGraph, layout)
        if language:
            self.graph(prompt_graph(layout), layout)
            self.graph(StepGraph, layout)

    def graph(self, kind: type, layout: Layout) -> Any:
        """The VisionGraph, prefill graph or StepGraph of a layout; its tables are computed once."""
        self._check_open()
        built = self._graphs.setdefault(kind, [])
        for known, graph in built:
            if known == layout:
                return graph
        family = self.family
        with torch.device(self.device):
            if kind is VisionGraph:
                graph = VisionGraph(self.model, family.adapter, layout)
            else:
                graph = kind(self.model, family.traits, layout, family.language, self.text_capacity)
        built.append((layout, graph))
        return graph

    def vision(self, layout: Layout, pixel_values: np.ndarray) -> np.ndarray:
        """float32 [N, ...] -> visual embeddings [N, n, D]."""
        return self.vision_result(layout, pixel_values).embeds

    def vision_result(
        self, layout: Layout, pixel_values: np.ndarray, joins: Sequence[np.ndarray] = ()
    ) -> VisionResult:
        """`vision`, with what its matched OIM steps joined.

        Args:
            layout: the layout.
            pixel_values: float32 [N, ...].
            joins: of each step what to join in place of the best, so that a run can be compared with another
                one's; the result still tells what this one would join.
        """
        pixels = torch.from_numpy(pixel_values).to(self.device)
        with torch.inference_mode():
            embeds, steps = self.graph(VisionGraph, layout).through(pixels, joins)
            joined, best, likeness = (
                tuple(_host(step.told(getattr(step, name))) for step in steps)
                for name in ("link", "best", "likeness")
            )
            return VisionResult(_host(embeds), joined, best, likeness)

    def new_caches(
        self, layout: Layout, batch: int, slots: Sequence[int] | None = None
    ) -> dict[str, torch.Tensor]:
        """Zeroed buffers by name, at full capacity."""
        del slots
        self._check_open()
        name: Any = str(self.dtype).removeprefix("torch.")
        specs = cache_specs(self.family.language, layout, self.text_capacity, name, batch)
        return {
            s.name: torch.zeros(s.shape, dtype=DTYPES[s.dtype].torch, device=self.device)
            for s in specs
        }

    def grown(
        self, layout: Layout, caches: dict[str, torch.Tensor], slots: Sequence[int]
    ) -> dict[str, torch.Tensor]:
        """These: they have the full capacity."""
        return caches

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
        graph = self.graph(prompt_graph(layout), layout)
        forced = {layer: self._tensor(ordinals) for layer, ordinals in (kept or {}).items()}
        logits, *rest = self._run(graph, feed, caches, forced=forced)
        stages = stage_results(layout.schedule.scored, [_host(x) for x in rest])
        return PrefillResult(_host(logits[:, 0]), stages)

    def step(self, layout: Layout, feed: StepFeed, caches: dict[str, torch.Tensor]) -> np.ndarray:
        """Run new tokens and extend the caches in place -> logits [B, vocabulary]."""
        graph = self.graph(StepGraph, layout)
        # its own, whatever layouts a bundle's step graph is shared by
        seen = visual_in(layout, self.family.language.layers)
        visual = np.array([[seen[i] for i in graph.spans]] * len(feed.input_ids))
        return _host(self._run(graph, replace(feed, visual_len=visual), caches)[0][:, 0])

    def read_caches(self, caches: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """Host copies."""
        self._check_open()
        return {name: np.array(_host(cache)) for name, cache in caches.items()}

    def close(self) -> None:
        """Give the model back; buffers belong to whoever made them."""
        self._closed, self.model = True, None
        self._graphs.clear()

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(values)).to(self.device)

    def _run(self, graph, feed, caches: dict[str, torch.Tensor], **options) -> list[torch.Tensor]:
        args = [self._tensor(getattr(feed, name)) for name in graph.inputs]
        with torch.inference_mode():
            logits, *rest = graph(*args, *caches.values(), **options)
        caches.update(zip(caches, rest, strict=False))
        return [logits, *rest[len(caches) :]]


def convert(model: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Move a model and convert its weights, in place; float32 buffers stay as precise as they are.

    `Module.to` would round them too, and with rounded rotary frequencies far positions turn wrongly.
    """
    for p in model.parameters():
        p.data = p.data.to(device=device, dtype=dtype if p.is_floating_point() else p.dtype)
    for b in model.buffers():
        rounded = b.is_floating_point() and b.dtype != torch.float32
        b.data = b.data.to(device=device, dtype=dtype if rounded else b.dtype)
    return model


def _host(x: torch.Tensor) -> np.ndarray:
    """As numpy, which has no bfloat16."""
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy(force=True)
