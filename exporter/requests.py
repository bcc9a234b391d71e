"""What to trace: example arguments, names and dynamic dimensions of a layout's three graphs.

Example sizes avoid 0 and 1, which the tracer would take as fixed. Letters: graphs.py.
"""

import torch
from torch import nn
from torch.export import Dim

from ..engines.backends.base import cache_names, cache_shapes
from ..engines.manifest import Layout
from .family import Family
from .graphs import PrefillGraph, StepGraph
from .language import Decoder
from .onnx_export import Trace
from .vision.core import VisionGraph

MAX_BATCH = 256
BATCH, TEXT, NEW = 2, 20, 3  # example sizes


def _dtype(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype


def vision_request(model: nn.Module, family: Family, layout: Layout) -> Trace:
    """pixel_values [N, 3, H, W] -> visual_embeds [N, n, D]; N is dynamic."""
    graph = VisionGraph(model, family.adapter, family.grid(layout), layout.schedule)
    return Trace(
        runs=graph.trace_once(),
        module=graph,
        args=(torch.zeros(2, 3, *layout.tile_size),),
        inputs=["pixel_values"],
        outputs=["visual_embeds"],
        dynamic={"pixel_values": {0: Dim("N", min=1, max=MAX_BATCH)}},
    )


def _caches(graph: Decoder, family: Family, layout: Layout, capacity: int):
    """Empty buffers of the layers that are traced."""
    d = family.decoder
    shapes = cache_shapes(d.layers, d.kv_heads, d.head_dim, capacity, layout, BATCH)
    dtype = _dtype(graph)
    return tuple(
        torch.zeros(shapes[2 * i + kind], dtype=dtype) for i in graph.layers for kind in (0, 1)
    )


def _text_trace(graph: PrefillGraph | StepGraph, family: Family, layout: Layout, capacity: int,
                length: Dim, args: tuple[torch.Tensor, ...]) -> Trace:  # fmt: skip
    """The request of a graph over text; ids and positions have a dynamic length, rows are dynamic."""
    runs = graph.trace_once()
    caches = _caches(graph, family, layout, capacity)
    rows = {0: Dim("B", min=1, max=MAX_BATCH)}
    long = ("input_ids", "position_ids")
    dynamic = {name: {**rows, 1: length} if name in long else rows for name in graph.inputs}
    return Trace(
        module=graph,
        args=(*args, *caches),
        inputs=[*graph.inputs, *cache_names(graph.layers)],
        outputs=graph.output_names(),
        dynamic={**dynamic, "caches": tuple(rows for _ in caches)},
        runs=runs,
    )


def prefill_request(model: nn.Module, family: Family, layout: Layout, capacity: int) -> Trace:
    """The prompt graph; B and S are dynamic, V is fixed."""
    V = layout.visual_tokens
    S = V + TEXT
    graph = PrefillGraph(model, V, layout.images, layout.schedule)
    args = (
        torch.zeros(BATCH, S, dtype=torch.long),
        torch.zeros(BATCH, V, family.decoder.hidden, dtype=_dtype(model)),
        torch.arange(4, 4 + V).expand(BATCH, -1).contiguous(),
        torch.arange(S).expand(BATCH, -1).contiguous(),
        torch.full((BATCH,), S - 1),
    )
    length = Dim("S", min=V + 2, max=V + capacity)
    return _text_trace(graph, family, layout, capacity, length, args)


def step_request(model: nn.Module, family: Family, layout: Layout, capacity: int) -> Trace:
    """The new-text graph; B and T are dynamic."""
    graph = StepGraph(model, layout.visual_tokens, layout.images, layout.schedule)
    args = (
        torch.zeros(BATCH, NEW, dtype=torch.long),
        torch.arange(NEW).expand(BATCH, -1).contiguous(),
        torch.full((BATCH,), TEXT),
        torch.full((BATCH,), NEW - 1),
    )
    length = Dim("T", min=1, max=capacity)
    return _text_trace(graph, family, layout, capacity, length, args)
