"""Products with quantised weights by ONNX Runtime's own kernels for them; measured: docs/quantisation.md.

int8, "w8a8": activations are rounded to 8 bits, too, with a scale for each token, so that neither padding
nor the other rows of a batch change a row. Products of whole numbers are exact, so a row in a batch is the
row alone, to the last bit.

int4: MatMulNBits, which rounds each group of activations to 8 bits.

Letters: N outputs of a product, K its inputs, G groups of inputs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from ...bundle.manifest import GROUP_SIZES, Quantisation
from .attention import CONTRIB

HIGHEST_BIT, BOTH_HIGHEST = 0x80, 0x88
"""Signed codes with these bits turned are unsigned ones, with 128 or 8 in the place of 0."""
LEVELS = 127  # of activations on either side of 0


def kernels(how: Quantisation | None, kept: bool) -> str:
    """What computes the products, for people; empty where nothing is quantised.

    Args:
        how: the weights are stored.
        kept: as codes; otherwise they become numbers when they are loaded.
    """
    if how is None:
        return ""
    if not kept:
        return f"{how.kind} weights made numbers when loaded"
    if how.kind == "int8":
        return "int8 products, activations rounded to 8 bits with a scale for each token"
    return "int4 products (MatMulNBits), activations rounded to 8 bits in groups"


@dataclass(frozen=True)
class _Weight:
    """A quantised weight that products alone read: the names of its tensors, and how it lies there."""

    codes: Any
    scales: Any
    group_size: int

    @classmethod
    def of(cls, node: Any, tensors: dict[str, Any]) -> "_Weight | None":
        """What a DequantizeLinear node reads, if it is of the form that luvc writes in float32."""
        given = [tensors[name] for name in node.input if name in tensors]
        if node.op_type != "DequantizeLinear" or not len(given) == len(node.input) == 2:
            return None
        (codes, scales), found = given, {a.name: a.i for a in node.attribute}
        if found.get("axis", 1) != 1 or scales.data_type != scales.FLOAT or len(codes.dims) != 2:
            return None
        size = found.get("block_size", 0)
        if codes.data_type == codes.INT8 and not size and list(scales.dims) == [codes.dims[1]]:
            return cls(codes, scales, 0)
        n, k = codes.dims
        fits = codes.data_type == codes.INT4 and size in GROUP_SIZES and k % size == 0
        return cls(codes, scales, size) if fits and list(scales.dims) == [n, k // size] else None


def use_kernels(model: Any, saturates: bool | None = None) -> dict[str, int]:
    """Let products read codes and scales themselves.

    Given: y = MatMul(x, DequantizeLinear(codes [K, N], scales [N]))
    Result: top = largest |x| of each token; y = MatMulIntegerToFloat(QuantizeLinear(x / top), codes) * top

    Given: y = MatMul(x, Transpose(DequantizeLinear(codes [N, K], scales [N, G])))
    Result: y = MatMulNBits(x, codes, scales)

    Args:
        model: changed in place.
        saturates: see `saturating`, which is asked where this is None.

    Returns:
        Bits to turn in the bytes of each tensor of codes; 0 where they stay as the file has them.
    """
    rewriting = _Rewriting(model, saturating() if saturates is None else saturates)
    return rewriting.run()


@cache
def saturating() -> bool:
    """Whether the kernel for uint8 x int8 loses what 16 bits do not hold here, as on x86 before VNNI.

    The kernel for uint8 x uint8 is exact, and slower than the other one where that is exact.
    """
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    inputs, outputs = 64, 32
    node = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
    graph = helper.make_graph(
        [node],
        "probe",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, ["M", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["M", outputs])],
        [numpy_helper.from_array(np.full((inputs, outputs), 127, np.int8), "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for rows in (1, 8):  # one and several rows have kernels of their own
        found = session.run(None, {"a": np.full((rows, inputs), 255, np.uint8)})[0]
        if (np.asarray(found) != 255 * 127 * inputs).any():
            return True
    return False


class _Rewriting:
    def __init__(self, model: Any, saturates: bool):
        self.model = model
        self.saturates = saturates
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.rounded: dict[str, tuple[str, str]] = {}
        self.turned: dict[str, int] = {}

    def run(self) -> dict[str, int]:
        """Rewrite all products that can be."""
        graph = self.model.graph
        weights, gone = self._weights()
        for node in graph.node:
            weight = weights.get(node.input[1]) if node.op_type == "MatMul" else None
            if weight is not None:
                self._product(node, weight)
            elif not gone.intersection(node.output):
                self.nodes.append(node)
        if not self.turned:
            return {}
        from onnx import helper, numpy_helper

        del graph.node[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in self.constants.items())
        if CONTRIB not in {o.domain for o in self.model.opset_import}:
            self.model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
        return self.turned

    def _weights(self) -> tuple[dict[str, _Weight], set[str]]:
        """Weights by the value that products read, and the values that nobody reads any more."""
        graph = self.model.graph
        tensors = {t.name: t for t in graph.initializer}
        readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        found: dict[str, _Weight] = {}
        gone: set[str] = set()
        for node in graph.node:
            weight = _Weight.of(node, tensors)
            if weight is None or len(readers[weight.codes.name]) > 1:
                continue
            values = list(node.output)
            if weight.group_size:
                turns = readers.get(values[0], [])
                if not all(n.op_type == "Transpose" and _perm(n) == [1, 0] for n in turns):
                    continue
                values = [n.output[0] for n in turns]
            if values and all(_multiplies(readers.get(v, []), v) for v in values):
                found.update(dict.fromkeys(values, weight))
                gone |= {*node.output, *values}
        return found, gone

    def _product(self, node: Any, weight: _Weight) -> None:
        """One product in place of a MatMul."""
        x, y = node.input[0], node.output[0]
        if not weight.group_size:
            self._product8(x, y, weight)
            return
        codes, size = weight.codes, weight.group_size
        if codes.name not in self.turned:
            n, k = codes.dims
            codes.data_type, codes.dims[:] = codes.UINT8, [n, k // size, size // 2]
            self.turned[codes.name] = BOTH_HIGHEST
        n, groups, _ = codes.dims
        sizes = {"N": n, "K": groups * size, "bits": 4, "block_size": size, "accuracy_level": 4}
        self._node("MatMulNBits", [x, codes.name, weight.scales.name], y, CONTRIB, **sizes)

    def _product8(self, x: str, y: str, weight: _Weight) -> None:
        import numpy as np

        rounded, top = self._rounded(x)
        codes = weight.codes
        if self.saturates:
            codes.data_type = codes.UINT8
        self.turned[codes.name] = HIGHEST_BIT if self.saturates else 0
        step = self._constant("step", np.float32(1 / LEVELS))
        middle = self._constant("middle", np.uint8(128))
        given = [rounded, codes.name, step, weight.scales.name, middle]
        given += [middle] if self.saturates else []
        self._node("MatMulIntegerToFloat", given, f"{y}.unscaled", CONTRIB)
        self._node("Mul", [f"{y}.unscaled", top], y)

    def _rounded(self, x: str) -> tuple[str, str]:
        """Activations as uint8 around 128 and the largest of each token; made once for all their products.

        A token of zeros is divided by zero: what becomes of it as a whole number is multiplied by 0 again.
        """
        import numpy as np

        if x not in self.rounded:
            last = self._constant("last", np.array([-1]))
            step = self._constant("step", np.float32(1 / LEVELS))
            middle = self._constant("middle", np.uint8(128))
            self._node("Abs", [x], f"{x}.size")
            self._node("ReduceMax", [f"{x}.size", last], f"{x}.top", keepdims=1)
            self._node("Div", [x, f"{x}.top"], f"{x}.unit")
            self._node("QuantizeLinear", [f"{x}.unit", step, middle], f"{x}.rounded")
            self.rounded[x] = f"{x}.rounded", f"{x}.top"
        return self.rounded[x]

    def _node(self, op: str, inputs: Iterable[str], output: str, domain: str = "", **more: Any):
        from onnx import helper

        self.nodes.append(helper.make_node(op, list(inputs), [output], domain=domain, **more))

    def _constant(self, name: str, value: Any) -> str:
        import numpy as np

        name = f"luvc.cpu.{name}"
        self.constants[name] = np.asarray(value)
        return name


def _perm(node: Any) -> list[int]:
    return [n for a in node.attribute if a.name == "perm" for n in a.ints]


def _multiplies(readers: list[Any], value: str) -> bool:
    """Whether all who read a value multiply by it from the right."""
    return bool(readers) and all(
        n.op_type == "MatMul" and n.input[1] == value and n.input[0] != value for n in readers
    )
