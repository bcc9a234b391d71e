"""Traced graphs that need no decomposition, which is half of an export's time.

torch.onnx.export traces every program a second time to split composite operators into those that it
translates. On luvc's graphs these composites are few and make views, casts and nothing else, so they are
translated here as they stand. A program with any other composite is decomposed in the ordinary way.
"""

from typing import Any

import onnx_ir as ir
import torch
from onnxscript.onnx_opset import opset18

_ATEN = torch.ops.aten
op: Any = opset18  # as the tracer's own translations


class Composite(Exception):
    """A program has an operator that must be decomposed."""


def _contiguous(self, memory_format: str = ""):
    return op.Identity(self)


def _to(
    self,
    dtype: int,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: str | None = None,
):
    return op.Cast(self, to=dtype)


def _flatten(self, start_dim: int = 0, end_dim: int = -1):
    rank = len(self.shape)
    first, last = start_dim % rank, end_dim % rank
    return _reshaped(self, first, [-1], last + 1)


def _unflatten(self, dim: int, sizes: list[int]):
    if not all(isinstance(size, int) for size in sizes):
        raise Composite("unflatten into computed sizes")
    axis = dim % len(self.shape)
    return _reshaped(self, axis, list(sizes), axis + 1)


def _reshaped(x, first: int, sizes: list[int], last: int):
    """`x` with `sizes` in place of its axes first .. last - 1; passes.py makes the target constant."""
    before = [op.Shape(x, end=first)] if first > 0 else []
    after = [op.Shape(x, start=last)] if last < len(x.shape) else []
    if not before and not after:
        return op.Reshape(x, sizes)
    return op.Reshape(x, op.Concat(*before, op.Constant(value_ints=sizes), *after, axis=0))


def _reshape(self, shape: list[int]):
    if all(isinstance(size, int) for size in shape):
        return op.Reshape(self, list(shape))
    sizes = (
        op.Constant(value_ints=[size]) if isinstance(size, int) else op.Reshape(size, [-1])
        for size in shape
    )
    return op.Reshape(self, op.Concat(*sizes, axis=0))


def _narrow(self, dim: int, start: int, length: int):
    if not isinstance(start, int) or start < 0:
        raise Composite("narrow from the end or a computed place")
    end = [start + length] if isinstance(length, int) else op.Add(op.Reshape(length, [-1]), [start])
    return op.Slice(self, [start], end, [dim], [1])


def _chunk(self, chunks: int, dim: int = 0):
    size = self.shape[dim]
    if not isinstance(size, int):
        raise Composite("chunks of a dynamic size")
    return op.SplitToSequence(self, -(-size // chunks), axis=dim)


def _expand_as(self, other):
    return op.Expand(self, op.Shape(other))


def _conv2d(
    input,
    weight,
    bias=None,
    stride: list[int] = (1, 1),  # type: ignore[assignment]
    padding: str = "valid",
    dilation: list[int] = (1, 1),  # type: ignore[assignment]
    groups: int = 1,
):
    """Padded with "same": as many outputs as inputs; where the padding is odd, more at the end."""
    if padding not in ("valid", "same") or len(input.shape) != 4:
        raise Composite(f"conv2d with padding {padding} of {len(input.shape)} axes")
    kernel = list(weight.shape[2:])
    spread = [d * (k - 1) * (padding == "same") for d, k in zip(dilation, kernel, strict=True)]
    before = [n // 2 for n in spread]
    after = [n - b for n, b in zip(spread, before, strict=True)]
    return op.Conv(
        input,
        weight,
        bias,
        strides=list(stride),
        pads=[*before, *after],
        dilations=list(dilation),
        group=groups,
        kernel_shape=kernel,
    )


def _square(self):
    return op.Pow(self, ir.tensor(2, dtype=self.dtype))


def _rsub(self, other: float, alpha: float = 1.0):
    if alpha != 1:
        raise Composite("rsub with a factor")
    return op.Sub(ir.tensor(other, dtype=self.dtype), self)


def _and(self, other):
    return op.And(*_booleans(self, other))


def _or(self, other):
    return op.Or(*_booleans(self, other))


def _booleans(*values):
    if any(v.dtype != ir.DataType.BOOL for v in values):
        raise Composite("bitwise logic of numbers")
    return values


COMPOSITES = {
    _ATEN.contiguous.default: _contiguous,
    _ATEN.to.dtype: _to,
    _ATEN.flatten.using_ints: _flatten,
    _ATEN.unflatten.int: _unflatten,
    _ATEN.reshape.default: _reshape,
    _ATEN.narrow.default: _narrow,
    _ATEN.chunk.default: _chunk,
    _ATEN.expand_as.default: _expand_as,
    _ATEN.conv2d.padding: _conv2d,
    _ATEN.square.default: _square,
    _ATEN.rsub.Scalar: _rsub,
    _ATEN.__and__.Tensor: _and,
    _ATEN.__or__.Tensor: _or,
}
"""Translations of what PyTorch would decompose, or has none of; refused arguments are decomposed too."""

WHOLE = frozenset(
    (
        _ATEN.conv1d.default,
        _ATEN.conv2d.default,
        _ATEN.conv3d.default,
        _ATEN.layer_norm.default,
        _ATEN.linear.default,
        _ATEN.matmul.default,
        _ATEN.repeat_interleave.self_int,
        _ATEN.rms_norm.default,
        _ATEN.scaled_dot_product_attention.default,
        _ATEN.softmax.int,
        _ATEN.sym_size.int,
        _ATEN.type_as.default,
    )
)
"""Composites that the tracer translates as they are, decompositions or not."""

IN_PLACE: dict[Any, Any] = {_ATEN.mul_.Tensor: _ATEN.mul.Tensor}
"""What writes into a tensor, and what gives the same where nobody else has that tensor."""

CHECKS = frozenset((_ATEN._assert_tensor_metadata.default, _ATEN._assert_scalar.default))
"""What only checks; the exporter leaves it out."""


def undecomposed(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program, which torch.onnx.export will translate as it stands.

    Args:
        program: changed in place: it loses its checks and what changes nothing, and its
            `run_decompositions`, which the exporter calls, does nothing.

    Raises:
        Composite: it writes in place, or has an operator that must be decomposed.
    """
    for module in program.graph_module.modules():
        graph: torch.fx.Graph = module.graph  # type: ignore[assignment]
        for node in graph.nodes:
            if node.op == "call_function":
                _simplify(graph, node)
        graph.eliminate_dead_code()
    # Of this program alone; an exporter that asked for it otherwise would decompose as ever.
    vars(program)["run_decompositions"] = lambda *_, **__: program
    return program


def _simplify(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    """Take out a check, or what gives its first argument."""
    if node.target in CHECKS:
        graph.erase_node(node)
    elif _changes_nothing(node):
        source: Any = node.args[0]
        if any(user.op == "output" for user in node.users):  # the program knows it by its name
            node.target = _ATEN.alias.default
            node.args, node.kwargs = (source,), {}
        else:
            node.replace_all_uses_with(source)
            graph.erase_node(node)
    elif node.target in IN_PLACE and _alone_with(node):
        node.target = IN_PLACE[node.target]
    elif _needs_decomposition(node.target):
        raise Composite(str(node.target))


def _changes_nothing(node: torch.fx.Node) -> bool:
    """A dtype or device that it has, or dropout where nothing is trained; strides stay as they are."""
    source = node.args[0] if node.args else None
    if node.target in (_ATEN.to.dtype, _ATEN.to.device) and isinstance(source, torch.fx.Node):
        before, after = source.meta["val"], node.meta["val"]
        return (before.dtype, before.device) == (after.dtype, after.device)
    return node.target is _ATEN.dropout.default and node.args[2:] == (False,)


def _alone_with(node: torch.fx.Node) -> bool:
    """Whether a node is the only one with its first argument, a sum of the type that it gives."""
    source = node.args[0]
    if not isinstance(source, torch.fx.Node) or source.target is not _ATEN.add.Tensor:
        return False
    return len(source.users) == 1 and source.meta["val"].dtype == node.meta["val"].dtype


def _needs_decomposition(target: Any) -> bool:
    if not isinstance(
        target, torch._ops.OpOverload
    ):  # arithmetic of sizes; control flow is the other
        return isinstance(target, torch._ops.HigherOrderOperator)
    if target._schema.is_mutable:
        return True
    composite = target.has_kernel_for_dispatch_key(
        torch._C.DispatchKey.CompositeImplicitAutograd  # type: ignore[attr-defined]
    )
    return composite and target not in WHOLE and target not in COMPOSITES
