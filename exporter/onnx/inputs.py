"""What to trace: example arguments, names and dynamic dimensions of a layout's graphs.

Example sizes avoid 0 and 1, which the tracer would take as fixed. `alone`: trace the first layer of every
run (see ops/layer_marks.py). Letters: language/graphs.py.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from ...dtypes import DTYPES, of_torch
from ...engines.bundle.joins import join_names
from ...engines.bundle.layout import Layout
from ...engines.bundle.tensors import cache_specs
from ..checkpoint.family import Family
from ..language.decoder import Decoder
from ..language.graphs import PrefillGraph, StepGraph, prompt_graph
from ..ops.riding import COLUMNS
from ..planning.methods import measured_score
from ..vision.graph import MatchedVisionGraph, VisionGraph
from .export import Trace

MAX_BATCH = 256
MAX_SLOTS = 1 << 24
# example sizes
BATCH = 2
TEXT = 20
NEW = 3


def vision_request(
    model: nn.Module, family: Family, layout: Layout, dtype: torch.dtype, alone: bool = False
) -> Trace:
    """pixel_values [N, ...] -> visual_embeds [N, n, D] and what matched steps join; N is dynamic."""
    joins = join_names(layout.schedule)
    graph = (MatchedVisionGraph if joins else VisionGraph)(model, family.adapter, layout)
    return Trace(
        runs=graph.trace_once(alone),
        module=graph,
        dtype=dtype,
        args=(torch.zeros(BATCH, *layout.pixel_shape[1:]),),
        inputs=["pixel_values"],
        outputs=["visual_embeds", *joins],
        dynamic={"pixel_values": {0: Dim("N", min=1, max=MAX_BATCH)}},
    )


def _caches(
    graph: Decoder,
    family: Family,
    layout: Layout,
    capacity: int,
    dtype: torch.dtype,
    together: Sequence[Layout],
):
    """Empty buffers of the layers that are traced."""
    name: Any = of_torch(dtype).name
    specs = cache_specs(family.language, layout, capacity, name, BATCH, together)
    shapes = {s.name: (s.shape, DTYPES[s.dtype].torch) for s in specs}
    found = (shapes[name] for name in graph.cache_names())
    return tuple(torch.zeros(shape, dtype=dtype) for shape, dtype in found)


def _positions(family: Family, length: int) -> torch.Tensor:
    """Example positions [B, length], or [B, length, P]."""
    axes = family.traits.position_axes
    positions = torch.arange(length).expand(BATCH, -1).contiguous()
    return positions if axes == 1 else positions[..., None].repeat(1, 1, axes)


def _text_trace(
    graph: PrefillGraph | StepGraph,
    family: Family,
    layout: Layout,
    capacity: int,
    dtype: torch.dtype,
    length: Dim,
    args: tuple[torch.Tensor, ...],
    alone: bool,
    together: Sequence[Layout],
) -> Trace:
    """The request of a graph over text: length, rows and a step's slots are dynamic."""
    runs = graph.trace_once(alone)
    caches = _caches(graph, family, layout, capacity, dtype, together)
    rows = {0: Dim("B", min=1, max=MAX_BATCH)}
    symbols = graph.slot_symbols()
    sizes = {
        symbol: Dim(symbol, min=2, max=MAX_SLOTS) for symbol in dict.fromkeys(symbols.values())
    }
    # a prompt only writes its caches: whatever their size, it is the same graph
    free = {n: {2: sizes[x]} for n, x in symbols.items()} if isinstance(graph, StepGraph) else {}
    long = ("input_ids", "position_ids")
    dynamic = {name: {**rows, 1: length} if name in long else rows for name in graph.inputs}
    return Trace(
        module=graph,
        dtype=dtype,
        args=(*args, *caches),
        inputs=[*graph.inputs, *graph.cache_names()],
        outputs=graph.output_names(),
        dynamic={**dynamic, "caches": tuple(rows | free.get(n, {}) for n in graph.cache_names())},
        runs=runs,
    )


def prefill_request(
    model: nn.Module,
    family: Family,
    layout: Layout,
    capacity: int,
    dtype: torch.dtype,
    together: Sequence[Layout] = (),
    alone: bool = False,
) -> Trace:
    """The prompt graph; B and S are dynamic, V is fixed. `together`: layouts that share the step graph."""
    V = layout.visual_tokens
    S = V + TEXT
    kind = prompt_graph(layout)
    graph = kind(model, family.traits, layout, family.language, capacity, together)
    width = family.decoder.hidden * (1 + family.traits.deepstack)
    width += COLUMNS * (measured_score(layout.schedule) is not None)
    examples = {
        "input_ids": torch.zeros(BATCH, S, dtype=torch.long),
        "visual_embeds": torch.zeros(BATCH, V, width, dtype=dtype),
        "visual_index": torch.arange(4, 4 + V).expand(BATCH, -1).contiguous(),
        "position_ids": _positions(family, S),
        "last_index": torch.full((BATCH,), S - 1),
    }
    args = tuple(examples[name] for name in graph.inputs)
    length = Dim("S", min=V + 2, max=V + capacity)
    return _text_trace(graph, family, layout, capacity, dtype, length, args, alone, together)


def step_request(
    model: nn.Module,
    family: Family,
    layout: Layout,
    capacity: int,
    dtype: torch.dtype,
    together: Sequence[Layout] = (),
    alone: bool = False,
) -> Trace:
    """The new-text graph; B, T and the slots are dynamic. `together`: layouts that share it."""
    graph = StepGraph(model, family.traits, layout, family.language, capacity, together)
    args = (
        torch.zeros(BATCH, NEW, dtype=torch.long),
        _positions(family, NEW),
        torch.full((BATCH,), TEXT),
        torch.full((BATCH,), NEW - 1),
        torch.full((BATCH, len(graph.spans)), 2),
    )
    length = Dim("T", min=1, max=capacity)
    return _text_trace(graph, family, layout, capacity, dtype, length, args, alone, together)
