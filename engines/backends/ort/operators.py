"""Fewer small operators: in a step each takes a microsecond or two, whatever it does; measured: docs/cpu.md.

ONNX Runtime finds norms by itself, but not where a reciprocal is multiplied in place of a division, and it
runs what nobody reads.
"""

from collections.abc import Iterator
from typing import Any

from .attention import shapes_of

ROTARY_SINCE = 23  # of the standard's operators
ALONG = ("Mul", "Cast", "Cos", "Sin")
"""Between angles and what turns: what keeps two equal halves equal."""


def fuse_operators(model: Any) -> dict[str, int]:
    """Make norms and rotations one operator each, and drop what nobody reads; returns how many of each.

    Given: y = w * (x * Reciprocal(Sqrt(ReduceMean(x ^ 2) + e)))
    Result: y = SimplifiedLayerNormalization(x, w)

    Given: y = x * c + Concat(-x[D/2:], x[:D/2]) * s, where c and s, [B, T, D], have two equal halves
    Result: y = RotaryEmbedding(x, c[:D/2], s[:D/2])

    Args:
        model: changed in place.
    """
    fusing = _Fusing(model)
    nodes = [new for node in model.graph.node for new in fusing.replaced(node)]
    kept = _read(nodes, {o.name for o in model.graph.output})
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return fusing.counts | {"unread": len(nodes) - len(kept)}


class _Fusing:
    def __init__(self, model: Any):
        graph = model.graph
        self.made = {name: node for node in graph.node for name in node.output}
        self.tensors = {t.name: t for t in graph.initializer}
        self.shapes = shapes_of(model)
        self.turns = any(o.domain == "" and o.version >= ROTARY_SINCE for o in model.opset_import)
        self.halves: dict[str, str] = {}
        self.counts = {"norms": 0, "rotations": 0}

    def replaced(self, node: Any) -> list[Any]:
        """What stands in a node's place: itself, or what computes all that it ends."""
        if node.op_type == "Mul" and (norm := self._norm(node)) is not None:
            self.counts["norms"] += 1
            return [norm]
        if node.op_type == "Add" and self.turns and (rotation := self._rotation(node)):
            self.counts["rotations"] += 1
            return rotation
        return [node]

    def _norm(self, node: Any) -> Any:
        """The norm that ends with a product; None if none does."""
        from onnx import helper

        for weight, normed in (node.input, reversed(node.input)):
            scaled = self._maker(normed, "Mul")
            if weight not in self.tensors or scaled is None:
                continue
            x, inverse = scaled.input
            root = self._behind(inverse, "Reciprocal", "Sqrt")
            shifted = root and self._maker(root.input[0], "Add")
            mean = shifted and self._maker(shifted.input[0], "ReduceMean")
            square = mean and self._maker(mean.input[0], "Pow")
            if not square or square.input[0] != x or self._numbers(square.input[1]) != [2]:
                continue
            epsilon, axes = self._numbers(shifted.input[1]), self._numbers(mean.input[1])
            if len(epsilon) == 1 and axes == [-1] and len(self.tensors[weight].dims) == 1:
                given = {"axis": -1, "epsilon": epsilon[0], "stash_type": 1}
                op = "SimplifiedLayerNormalization"
                return helper.make_node(op, [x, weight], list(node.output), **given)
        return None

    def _rotation(self, node: Any) -> list[Any]:
        """The rotation that ends with a sum, and halves that none before it reads; empty if none does."""
        from onnx import helper

        plain, turned = (self._maker(name, "Mul") for name in node.input)
        joined = turned and self._maker(turned.input[0], "Concat")
        if not plain or not joined or not self._turns_halves(joined, plain.input[0]):
            return []
        waves = [self._wave(m.input[1], self.shapes[plain.input[0]]) for m in (plain, turned)]
        if "" in waves:
            return []
        new: list[Any] = []
        for wave in waves:
            if wave not in self.halves:
                self.halves[wave] = f"{wave}.half"
                both = [f"{wave}.half", f"{wave}.other"]
                new.append(helper.make_node("Split", [wave], both, axis=-1, num_outputs=2))
        given = [plain.input[0], *(self.halves[wave] for wave in waves)]
        return [*new, helper.make_node("RotaryEmbedding", given, list(node.output))]

    def _turns_halves(self, joined: Any, x: str) -> bool:
        """Whether a Concat is -x[D/2:] and x[:D/2] of x [B, H, T, D]."""
        shape = self.shapes.get(x, [])
        if len(shape) != 4 or not isinstance(shape[3], int) or len(joined.input) != 2:
            return False
        minus = self._maker(joined.input[0], "Neg")
        parts = minus and [self._maker(n, "Slice") for n in (minus.input[0], joined.input[1])]
        if not parts or None in parts or any(p.input[0] != x for p in parts):
            return False
        half = shape[3] // 2
        starts = [self._numbers(p.input[1]) for p in parts]
        halves = [self.shapes.get(p.output[0]) for p in parts]
        return starts == [[half], [0]] and halves == [[*shape[:3], half]] * 2

    def _wave(self, name: str, shape: list[Any]) -> str:
        """[B, T, D] of which [B, 1, T, D] is made, if its halves are equal; otherwise the empty name."""
        batch, _, length, width = shape
        spread = self._maker(name, "Unsqueeze")
        if not spread or self._numbers(spread.input[1]) != [1]:
            return ""
        wave = spread.input[0]
        if self.shapes.get(wave) != [batch, length, width]:
            return ""
        node = self.made.get(wave)
        while node is not None and node.op_type in ALONG:
            if node.op_type == "Mul" and len(self._numbers(node.input[1])) != 1:
                return ""
            node = self.made.get(node.input[0])
        if node is None or node.op_type != "Concat":
            return ""
        return wave if len(node.input) == 2 and len(set(node.input)) == 1 else ""

    def _maker(self, name: str, op: str) -> Any:
        """The node of a kind that makes a value, or None."""
        node = self.made.get(name)
        return node if node is not None and node.op_type == op else None

    def _behind(self, name: str, *ops: str) -> Any:
        """The last node of a chain that ends in a value, from its end on; None where it is another."""
        node = None
        for op in ops:
            node = self._maker(name, op)
            if node is None:
                return None
            name = node.input[0]
        return node

    def _numbers(self, name: str) -> list[Any]:
        """What a small constant holds; empty where it is none."""
        from onnx import numpy_helper

        node, tensor = self._maker(name, "Constant"), self.tensors.get(name)
        if node is not None:
            tensor = next((a.t for a in node.attribute if a.name == "value"), None)
        if tensor is None or tensor.external_data:
            return []
        return numpy_helper.to_array(tensor).ravel().tolist()


def _read(nodes: list[Any], wanted: set[str]) -> list[Any]:
    """The nodes that a graph's outputs need, in their order.

    Args:
        nodes: in an order that they can run in.
        wanted: the outputs; added to.
    """
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted |= {name for name in _reads(node) if name}
    return kept[::-1]


def _reads(node: Any) -> Iterator[str]:
    """What a node and the graphs inside it read."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _reads(inner)
        yield from (o.name for o in attribute.g.output)
