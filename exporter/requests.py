"""What to trace: example arguments, names and dynamic dimensions of a layout's three graphs.

Example sizes avoid 0 and 1, which the tracer would take as fixed. Letters: graphs.py.
"""

import torch
from torch import nn
from torch.export import Dim

from ..engines.backends.base import cache_shapes
from ..engines.manifest import Layout
from .family import Family
from .graphs import PrefillGraph, StepGraph, cache_names
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


def prefill_request(model: nn.Module, family: Family, layout: Layout, capacity: int) -> Trace:
    """The prompt graph; B and S are dynamic, V is fixed."""
    V, rows = layout.visual_tokens, {0: Dim("B", min=1, max=MAX_BATCH)}
    graph = PrefillGraph(model, V, layout.images, layout.schedule)
    runs = graph.trace_once()
    length = V + TEXT
    sequence = {**rows, 1: Dim("S", min=V + 2, max=V + capacity)}
    caches = _caches(graph, family, layout, capacity)
    args = (
        torch.zeros(BATCH, length, dtype=torch.long),
        torch.zeros(BATCH, V, family.decoder.hidden, dtype=_dtype(model)),
        torch.arange(4, 4 + V).expand(BATCH, -1).contiguous(),
        torch.arange(length).expand(BATCH, -1).contiguous(),
        torch.full((BATCH,), length - 1),
        *caches,
    )
    return Trace(
        runs=runs,
        module=graph,
        args=args,
        inputs=[*graph.inputs, *cache_names(graph.layers)],
        outputs=graph.output_names(),
        dynamic={
            "input_ids": sequence,
            "visual_embeds": rows,
            "visual_index": rows,
            "position_ids": sequence,
            "last_index": rows,
            "caches": tuple(rows for _ in caches),
        },
    )


def step_request(model: nn.Module, family: Family, layout: Layout, capacity: int) -> Trace:
    """The new-text graph; B and T are dynamic."""
    rows = {0: Dim("B", min=1, max=MAX_BATCH)}
    graph = StepGraph(model, layout.visual_tokens, layout.images, layout.schedule)
    runs = graph.trace_once()
    sequence = {**rows, 1: Dim("T", min=1, max=capacity)}
    caches = _caches(graph, family, layout, capacity)
    args = (
        torch.zeros(BATCH, NEW, dtype=torch.long),
        torch.arange(NEW).expand(BATCH, -1).contiguous(),
        torch.full((BATCH,), TEXT),
        torch.full((BATCH,), NEW - 1),
        *caches,
    )
    return Trace(
        runs=runs,
        module=graph,
        args=args,
        inputs=[*graph.inputs, *cache_names(graph.layers)],
        outputs=graph.output_names(),
        dynamic={
            "input_ids": sequence,
            "position_ids": sequence,
            "text_len": rows,
            "last_index": rows,
            "caches": tuple(rows for _ in caches),
        },
    )
