"""Layers of a run are traced once and stamped: the first is traced, the others are copies of its nodes.

Layers that see the same number of tokens differ only in their weights and caches, so tracing each of
them (most of an export's time) tells nothing new. The traced layer stands between two marks; a copy
has the next layer's weights, cache inputs and cache outputs. Validation compares every stamped layer
with PyTorch.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch

from ..plugins.spectrum.contract import DOMAIN

MARK = "LayerMark"


@dataclass(frozen=True)
class Run:
    """Layers first .. last, alike but for weights and caches; only the first is traced.

    Attributes:
        first: index of the traced layer.
        last: index of the last stamped one.
        name: the layers' module, such as "model.language_model.layers".
    """

    first: int
    last: int
    name: str


@torch.library.custom_op(f"{DOMAIN}::layer_mark", mutates_args=())
def layer_mark(x: torch.Tensor, layer: int, end: bool) -> torch.Tensor:
    """The tensor itself; in a traced graph, where a layer starts or ends."""
    return x.clone()


@layer_mark.register_fake
def _(x, layer, end):
    return torch.empty_like(x)


def mark(x: torch.Tensor, layer: int, end: bool) -> torch.Tensor:
    """Mark a layer's border while tracing; costs nothing otherwise."""
    return torch.ops.luvc.layer_mark(x, layer, end) if torch.onnx.is_in_onnx_export() else x


def stamp(model: ir.Model, runs: Sequence[Run]) -> None:
    """Given: one traced layer of each run. Result: all layers, and no marks."""
    starts, ends = _marks(model.graph)
    for run in runs:
        start, end = starts[run.first], ends[run.first]
        body = _body(model.graph, run, start, end)
        users = [(use.node, use.idx) for use in end.outputs[0].uses()]
        value = _input(end)
        for layer in range(run.first + 1, run.last + 1):
            value = _copy(model.graph, run, layer, body, start, end, value)
        for node, index in users:
            node.replace_input_with(index, value)
    for node in (*starts.values(), *ends.values()):
        source, result = _input(node), node.outputs[0]
        for use in tuple(result.uses()):
            use.node.replace_input_with(use.idx, source)
        model.graph.remove(node, safe=True)
    _order(model.graph)


def _marks(graph: ir.Graph) -> tuple[dict[int, ir.Node], dict[int, ir.Node]]:
    starts, ends = {}, {}
    for node in graph:
        if node.op_type == MARK:
            layer, end = (node.attributes[n].as_int() for n in ("layer", "end"))
            (ends if end else starts)[layer] = node
    return starts, ends


def _input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _cache_layer(name: str | None) -> int | None:
    """Layer of a cache input or output by its name, None for anything else."""
    match = re.fullmatch(r"cache_(?:key|value|conv)_(\d+)(?:_out)?", name or "")
    return int(match[1]) if match else None


def _body(graph: ir.Graph, run: Run, start: ir.Node, end: ir.Node) -> list[ir.Node]:
    """Nodes between what is the layer's own (input, weights, caches) and what it gives, in order.

    Nodes before the layer are not its own even where they read its weights, as an SPU stage that
    scores the layer's normalised input does.
    """
    before = _ancestors([_input(start)])
    own: set[ir.Node] = set()
    for node in graph:  # topological order
        if node not in before and node is not start and node is not end:
            for v in node.inputs:
                if v is not None and (
                    v is start.outputs[0]
                    or v.producer() in own
                    or _renamed(run, run.first + 1, v.name) != v.name
                ):
                    own.add(node)
    caches = [v for v in graph.outputs if _cache_layer(v.name) == run.first]
    needed = _ancestors([_input(end), *caches])
    return [node for node in graph if node in own and node in needed]


def _ancestors(values: list[ir.Value]) -> set[ir.Node]:
    """All nodes that lead to the values."""
    found: set[ir.Node] = set()
    wanted = list(values)
    while wanted:
        producer = wanted.pop().producer()
        if producer is not None and producer not in found:
            found.add(producer)
            wanted += [v for v in producer.inputs if v is not None]
    return found


def _copy(
    graph: ir.Graph, run: Run, layer: int, body: Iterable[ir.Node], start: ir.Node, end: ir.Node,
    source: ir.Value,
) -> ir.Value:  # fmt: skip
    """One more layer, fed with `source` -> its output."""
    values: dict[ir.Value, ir.Value] = {start.outputs[0]: source}
    outputs = set(graph.outputs)
    copies = []
    for node in body:
        for v in node.inputs:
            if v is not None and v not in values:
                values[v] = _outside(graph, run, layer, v)
        inputs = [v if v is None else values[v] for v in node.inputs]
        new = ir.Node(
            node.domain, node.op_type, inputs, list(node.attributes.values()),
            num_outputs=len(node.outputs),
        )  # fmt: skip
        for old, value in zip(node.outputs, new.outputs, strict=True):
            value.shape, value.type = old.shape, old.type
            stamped = old in outputs
            value.name = _renamed(run, layer, old.name) if stamped else f"{old.name}_layer{layer}"
            values[old] = value
            if stamped:
                graph.outputs.append(value)
        copies.append(new)
    graph.insert_before(end, copies)
    return values[_input(end)]


def _outside(graph: ir.Graph, run: Run, layer: int, value: ir.Value) -> ir.Value:
    """What a copy reads from outside its body: the layer's own weight or cache, or the same value."""
    name = _renamed(run, layer, value.name)
    if name == value.name:
        return value
    if name in graph.initializers:
        return graph.initializers[name]
    new = ir.Value(name=name, shape=value.shape, type=value.type, const_value=value.const_value)
    if value.is_initializer():
        graph.register_initializer(new)
    else:
        graph.inputs.append(new)
    return new


def _renamed(run: Run, layer: int, name: str | None) -> str:
    """A weight's or cache's name for another layer."""
    name = name or ""
    if _cache_layer(name) == run.first:
        return name.replace(f"_{run.first}", f"_{layer}")
    prefix = f"{run.name}.{run.first}."
    return f"{run.name}.{layer}.{name.removeprefix(prefix)}" if name.startswith(prefix) else name


def _order(graph: ir.Graph) -> None:
    """Cache inputs and outputs by layer, where the traced ones stood."""
    for values in (graph.inputs, graph.outputs):
        caches = [v for v in values if _cache_layer(v.name) is not None]
        if not caches:
            continue
        first = values.index(caches[0])
        others = [v for v in values if _cache_layer(v.name) is None]
        caches.sort(key=lambda v: (_cache_layer(v.name) or 0, "value" in str(v.name)))
        values[:] = [*others[:first], *caches, *others[first:]]
