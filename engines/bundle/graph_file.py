"""A bundle's ONNX graphs, held to what luvc writes before a runtime sees them.

Runtimes are not made for graphs of strangers: a chain of thousands of functions ends ONNX Runtime with
a crash, functions that call each other twice, or a loop without an end, never let it return. luvc's own
graphs are straight: standard operators that run once each, and luvc's functions, whose bodies call no
others. A function may scan: that repeats its inner graph once for each entry of a tensor, and ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ...errors import LuvcError, brief, printable
from ...plugins.contract import DOMAIN
from ...plugins.operators import BODIES
from .folder import Bundle

if TYPE_CHECKING:
    import onnx  # late: what runs engines need not have it

STANDARD = ("", "ai.onnx")
FUNCTIONS = frozenset((DOMAIN, operator.name) for operator in BODIES)
_STRAIGHT = """
Abs Add And ArgMax Attention AveragePool BitShift Cast CastLike Ceil Clip Concat Constant
ConstantOfShape Conv Cos CumSum DequantizeLinear Div Elu Equal Erf Exp Expand Flatten Floor Gather
GatherElements GatherND Gelu Gemm Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish
Identity InstanceNormalization IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log MatMul Max Min
Mish Mod Mul Neg Not Or Pad Pow RMSNormalization Range Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin
ReduceSum Relu Reshape Resize RotaryEmbedding Round ScatterElements ScatterND Shape Sigmoid Sign Sin
Slice Softmax Softplus Split Sqrt Squeeze Sub Swish Tanh TensorScatter Tile TopK Transpose Trilu
Unsqueeze Where
"""
KNOWN = frozenset(_STRAIGHT.split())
"""Standard operators that compute tensors from tensors, once: no control flow, chance, texts or sequences."""
SCAN = "Scan"
REPEATING = ("ConstantOfShape", "Expand", "Tile")  # make large tensors of small ones

LARGEST = 1 << 30
"""Bytes of a graph file; the weights are beside it."""
NODES = 100_000
"""Of a graph; the largest published models have a tenth of it."""
BODY = 1000
"""Nodes of a function."""
REPEATED = 1 << 28
"""Elements of a tensor that is made of a smaller one, where the file says how many."""


def read_graph(bundle: Bundle, name: str) -> onnx.ModelProto:
    """A graph without its weights, proved to be of the kind that luvc writes.

    Args:
        bundle: a loaded bundle.
        name: of the graph in it.

    Raises:
        LuvcError: unreadable, with operators or functions that luvc does not write, too large, or with
            a weight outside the bundle or in an unlisted file.
    """
    import onnx

    path = bundle.file(name)
    if path.stat().st_size > LARGEST:
        raise LuvcError(f"{name} has more than {LARGEST >> 20} MiB; export it again")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # the protobuf library has no base class for a damaged file
        raise LuvcError(
            f"{name} is not a readable ONNX file ({brief(error)}); export it again"
        ) from error
    problem = _structure(model) or _operators(model) or _sizes(model)
    if problem:
        raise LuvcError(
            f"{name} {problem}, which luvc-export does not write; do not use this bundle"
        )
    folder = PurePosixPath(name).parent
    for location in sorted(set(external_files(model))):
        listed = (folder / location).as_posix()
        bundle.file(listed)  # refuses what leaves the bundle
        if listed not in bundle.manifest.files:
            raise LuvcError(
                f"{name} reads {printable(listed, 200)}, which the manifest does not list; export it again"
            )
    return model


def _structure(model: onnx.ModelProto) -> str:
    """What is wrong with the parts of the file, or nothing."""
    if model.training_info or model.graph.sparse_initializer:
        return "has training data or sparse weights"
    if any(isinstance(location, bytes) for location in external_files(model)):
        return (
            "names a file of weights by bytes that are no text"  # protobuf's way with broken UTF-8
        )
    if len(model.graph.node) > NODES:
        return f"has {len(model.graph.node)} nodes, more than {NODES}"
    named = [(f.domain, f.name) for f in model.functions]
    strange = sorted(
        {f"{domain}::{name}" for domain, name in named if (domain, name) not in FUNCTIONS}
    )
    if strange:
        return f"defines the function {strange[0]}"
    if len(set(named)) < len(named) or any(f.overload for f in model.functions):
        return "defines a function twice"
    longest = max((len(f.node) + len(_scanned(f.node)) for f in model.functions), default=0)
    return f"has a function of {longest} nodes" if longest > BODY else ""


def _scanned(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Nodes of the graphs that these scan with."""
    scans = (n for n in nodes if n.domain in STANDARD and n.op_type == SCAN)
    return [inner for scan in scans for a in scan.attribute for inner in a.g.node]


def _operators(model: onnx.ModelProto) -> str:
    """The first node that luvc does not write, or nothing."""
    bodies = [node for function in model.functions for node in function.node]
    inner = _scanned(bodies)
    for node, scans in (
        *((node, False) for node in (*model.graph.node, *inner)),
        *((node, node.domain in STANDARD and node.op_type == SCAN) for node in bodies),
    ):
        if any(a.graphs or (a.HasField("g") and not scans) for a in node.attribute):
            return f"has the operator {node.op_type} with a graph of its own"
        if any(
            a.HasField("sparse_tensor") or a.sparse_tensors or a.g.sparse_initializer
            for a in node.attribute
        ):
            return f"has the operator {node.op_type} with sparse weights"
        if node.domain in STANDARD and node.op_type not in KNOWN and not scans:
            return f"has the operator {node.op_type}"
    for node in model.graph.node:
        if node.domain not in STANDARD and (node.domain, node.op_type) not in FUNCTIONS:
            return f"has the operator {node.domain}::{node.op_type}"
    called = next((node for node in (*bodies, *inner) if node.domain not in STANDARD), None)
    return f"has a function that calls {called.domain}::{called.op_type}" if called else ""


def _sizes(model: onnx.ModelProto) -> str:
    """A tensor whose constant shape no memory holds, or nothing."""
    constants = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            for value in (a.t for a in node.attribute if a.name == "value"):
                constants.update(dict.fromkeys(node.output, value))
    for node in model.graph.node:
        if node.op_type in REPEATING and node.domain in STANDARD and node.input:
            shape = constants.get(node.input[-1])
            count = math.prod(max(1, abs(n)) for n in _integers(shape)) if shape is not None else 0
            if count > REPEATED:
                return f"makes a tensor of {count:.3g} elements ({node.op_type})"
    return ""


def _integers(tensor: onnx.TensorProto) -> list[int]:
    """Values of a shape; nothing of what is too long for one, or lies in another file."""
    from onnx import numpy_helper

    if tensor.data_type != tensor.INT64 or len(tensor.dims) != 1 or tensor.dims[0] > 16:
        return []
    if tensor.external_data:
        return []
    return [int(n) for n in numpy_helper.to_array(tensor)]


def external_files(model: onnx.ModelProto) -> Iterator[str]:
    """Locations of the external data of all tensors, those inside functions too."""
    tensors = [*model.graph.initializer]
    nodes = [*model.graph.node, *(n for function in model.functions for n in function.node)]
    while nodes:
        for attribute in nodes.pop().attribute:
            tensors += (attribute.t, *attribute.tensors, *attribute.g.initializer)
            nodes += attribute.g.node
    for tensor in tensors:
        yield from (e.value for e in tensor.external_data if e.key == "location")
