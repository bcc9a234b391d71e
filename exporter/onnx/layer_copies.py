"""Each kind of layer is traced once and stamped: the others are copies of its nodes.

Layers of a kind differ in their weights, their caches and what they are fed, so tracing each of them
(most of an export's time) tells nothing new. A traced layer stands between marks on everything that
enters it and on its output. A copy has another layer's weights, cache inputs and cache outputs; where
the number of tokens is another (behind an SPU stage or an OIM step), a gap was traced in its place, and
the copy is fed with what entered the gap. Validation compares every stamped layer with PyTorch.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest

import onnx_ir as ir

from ..ops.layer_marks import END, PLACES, START, Run

MARK, GAP = "LayerMark", "LayerGap"


class Unlike(Exception):
    """A traced layer cannot stand for others: it holds what only its own token count allows."""


def stamp(model: ir.Model, runs: Sequence[Run]) -> None:
    """Given: a traced layer of each kind, gaps elsewhere. Result: all layers, no marks and no gaps.

    Raises:
        Unlike: a traced layer cannot stand for another run's.
    """
    graph = model.graph
    marks, gaps = _marks(graph)
    by_first = {run.first: run for run in runs}
    for run in runs:
        source = by_first[run.first if run.like is None else run.like]
        copier = _Copier(graph, source, run, marks[source.first])
        if run.like is None:
            end = marks[run.first][END]
            fed = {place: node.outputs[0] for place, node in marks[run.first].items()}
        else:
            end = gaps[run.first]
            fed = dict(zip_longest(PLACES, end.inputs))
        users = [(use.node, use.idx) for use in end.outputs[0].uses()]
        value = _input(end)
        for layer in range(run.first + (run.like is None), run.last + 1):
            value = copier.copy(layer, end, fed | {START: value})
        for node, index in users:
            node.replace_input_with(index, value)
    _clear(graph, marks, gaps)
    _order(graph)


def _clear(graph: ir.Graph, marks: Mapping[int, dict[str, ir.Node]], gaps: Mapping[int, ir.Node]):
    """Take marks and gaps out; nobody uses a gap's output any more."""
    graph.remove(gaps.values(), safe=True)
    for node in (node for places in marks.values() for node in places.values()):
        source, result = _input(node), node.outputs[0]
        for use in tuple(result.uses()):
            use.node.replace_input_with(use.idx, source)
        graph.remove(node, safe=True)


def _marks(graph: ir.Graph) -> tuple[dict[int, dict[str, ir.Node]], dict[int, ir.Node]]:
    """Marks by layer and place, gaps by layer."""
    marks: dict[int, dict[str, ir.Node]] = {}
    gaps = {}
    for node in graph:
        if node.op_type == MARK:
            place = node.attributes["place"].as_string()
            marks.setdefault(node.attributes["layer"].as_int(), {})[place] = node
        elif node.op_type == GAP:
            gaps[node.attributes["layer"].as_int()] = node
    return marks, gaps


def _input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _cache_layer(name: str | None) -> int | None:
    """Layer of a cache input or output by its name, None for anything else."""
    match = re.fullmatch(r"cache_(?:key|value|conv|state)_(\d+)(?:_out)?", name or "")
    return int(match[1]) if match else None


class _Copier:
    """Copies of a traced layer.

    Args:
        graph: where to.
        source: run whose first layer was traced.
        run: run whose layers are made.
        marks: of the traced layer, by place.

    Raises:
        Unlike: the traced layer cannot stand for that run's.
    """

    def __init__(self, graph: ir.Graph, source: Run, run: Run, marks: dict[str, ir.Node]):
        self.graph = graph
        self.source = source
        self.run = run
        self.marks = {place: node.outputs[0] for place, node in marks.items() if place != END}
        self.result = _input(marks[END])
        self.body = self._body(marks)
        if run.length != source.length:
            self._check()

    def _body(self, marks: dict[str, ir.Node]) -> list[ir.Node]:
        """Nodes between what is the layer's own (inputs, weights, caches) and what it gives, in order.

        Nodes before the layer are not its own even where they read its weights, as an SPU stage that
        scores the layer's normalised input does; but for what is made of weights alone (1 + a norm's), which
        the two share.
        """
        layer, borders = self.source.first, set(marks.values())
        before = _ancestors([_input(marks[START])])
        own: set[ir.Node] = set()
        fixed: set[ir.Node] = set()
        for node in self.graph:  # topological order
            if all(v is None or v.is_initializer() or v.producer() in fixed for v in node.inputs):
                fixed.add(node)
            if node in borders or (node in before and node not in fixed):
                continue
            for v in node.inputs:
                if v is not None and (
                    v.producer() in own
                    or v in self.marks.values()
                    or self._renamed(layer + 1, v.name) != v.name
                ):
                    own.add(node)
        caches = [v for v in self.graph.outputs if _cache_layer(v.name) == layer]
        needed = _ancestors([self.result, *caches])
        return [node for node in self.graph if node in own and node in needed]

    def _check(self) -> None:
        """Nothing but marks, weights, caches and constants enters, and no constant tells the length."""
        body = set(self.body)
        layer, length = self.source.first, self.source.length
        for v in (v for node in self.body for v in node.inputs):
            if v is None or v.producer() in body or v in self.marks.values():
                continue
            if self._renamed(layer + 1, v.name) != v.name:
                continue
            constant = ir.convenience.get_const_tensor(v)
            if constant is None:
                raise Unlike(f"layer {layer} reads {v.name} from outside")
            if constant.dtype == ir.DataType.INT64 and length in constant.numpy():
                raise Unlike(f"layer {layer} has its {length} tokens in {v.name}")

    def copy(self, layer: int, before: ir.Node, fed: Mapping[str, ir.Value | None]) -> ir.Value:
        """One more layer -> its output.

        Args:
            layer: its index.
            before: node that the copies are put before.
            fed: what enters it, by place.
        """
        values = {mark: fed[place] for place, mark in self.marks.items()}
        outputs = set(self.graph.outputs)
        copies = []
        for node in self.body:
            for v in node.inputs:
                if v is not None and v not in values:
                    values[v] = self._outside(layer, v)
            inputs = [v if v is None else values[v] for v in node.inputs]
            new = ir.Node(
                node.domain,
                node.op_type,
                inputs,
                list(node.attributes.values()),
                num_outputs=len(node.outputs),
            )
            for old, value in zip(node.outputs, new.outputs, strict=True):
                self._name(layer, old, value, old in outputs)
                values[old] = value
            copies.append(new)
        self.graph.insert_before(before, copies)
        result = values[self.result]
        assert result is not None
        return result

    def _name(self, layer: int, old: ir.Value, value: ir.Value, given: bool) -> None:
        """Name and type of a copy's value; those that are the graph's outputs join them."""
        value.type = old.type
        if given:
            value.name, value.shape = self._renamed(layer, old.name), self._resized(old)
            self.graph.outputs.append(value)
            return
        value.name = f"{old.name}_layer{layer}"
        if self.source.length == self.run.length:
            value.shape = old.shape

    def _resized(self, value: ir.Value) -> ir.Shape | None:
        """Shape [B, H_kv, C, d] of a key or value cache with this run's slots; others as they are."""
        if value.shape is None or re.match("cache_(conv|state)", str(value.name)):
            return value.shape
        sizes = list(value.shape)
        if _cache_layer(value.name) is not None:
            sizes[2] = self.run.length
        return ir.Shape(sizes)

    def _outside(self, layer: int, value: ir.Value) -> ir.Value:
        """What a copy reads from outside its body: its own weight or cache, or the same value."""
        name = self._renamed(layer, value.name)
        if name == value.name:
            return value
        if name in self.graph.initializers:
            return self.graph.initializers[name]
        shape = self._resized(value)
        new = ir.Value(name=name, shape=shape, type=value.type, const_value=value.const_value)
        if value.is_initializer():
            self.graph.register_initializer(new)
        else:
            self.graph.inputs.append(new)
        return new

    def _renamed(self, layer: int, name: str | None) -> str:
        """A weight's or cache's name for another layer."""
        name, first = name or "", self.source.first
        if _cache_layer(name) == first:
            return name.replace(f"_{first}", f"_{layer}")
        prefix = f"{self.source.name}.{first}."
        if not name.startswith(prefix):
            return name
        return f"{self.source.name}.{layer}.{name.removeprefix(prefix)}"


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


def _order(graph: ir.Graph) -> None:
    """Cache inputs and outputs by layer, where the traced ones stood."""
    for values in (graph.inputs, graph.outputs):
        caches = [v for v in values if _cache_layer(v.name) is not None]
        if not caches:
            continue
        first = values.index(caches[0])
        others = [v for v in values if _cache_layer(v.name) is None]
        caches.sort(key=lambda v: (_cache_layer(v.name) or 0, str(v.name).split("_")[1]))
        values[:] = [*others[:first], *caches, *others[first:]]
