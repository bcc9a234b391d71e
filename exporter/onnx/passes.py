"""Passes between tracing and saving; each docstring says what a graph looks like before and after."""

from collections.abc import Container

import numpy as np
import onnx_ir as ir
import onnxscript.optimizer
from onnx_ir.passes import common as passes

from ...plugins.contract import DOMAIN, VERSION, Operator
from ...plugins.onnx_functions import function_of
from ...plugins.operators import BODIES, OPERATORS


def simplify(model: ir.Model, weights: Container[str]) -> None:
    """Given: the traced graph. Result: inlined, constants folded, common subexpressions shared.

    Nothing is folded into weights, so initializers stay the checkpoint's parameters. The exporter's
    default optimiser does more, but in time quadratic in the nodes.

    Args:
        model: changed in place.
        weights: names of the parameters.
    """

    def keep_weights(node: ir.Node) -> bool | None:
        reads = any(
            v is not None and v.is_initializer() and str(v.name) in weights for v in node.inputs
        )
        return False if reads else None

    onnxscript.optimizer.inline(model)
    onnxscript.optimizer.fold_constants(model, should_fold=keep_weights)
    onnxscript.optimizer.remove_unused_nodes(model)
    passes.CommonSubexpressionEliminationPass()(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)


def static_reshape(model: ir.Model) -> None:
    """Given: Reshape(x, computed target). Result: Reshape(x, constant), 0 = copy, one -1 at most.

    After a prune the exporter computes targets such as [B, S - V + keep, -1, d], and TensorRT loses
    the head count that KVCacheUpdate needs. The traced shapes say which dimensions are fixed.
    """
    constants: dict[tuple[int, ...], ir.Value] = {}
    for node in list(model.graph):
        if node.op_type != "Reshape" or node.domain not in ("", "ai.onnx"):
            continue
        target = _reshape_target(node)
        if target is None:
            continue
        if target not in constants:
            name = "shape_" + "_".join(map(str, target)).replace("-", "m")
            constants[target] = _constant(model, name, target)
        node.replace_input_with(1, constants[target])
        node.attributes.pop("allowzero", None)
    passes.RemoveUnusedNodesPass()(model)


def _reshape_target(node: ir.Node) -> tuple[int, ...] | None:
    """A constant target equal to the traced output shape, or None where it cannot be written."""
    source, result = node.inputs[0], node.outputs[0].shape
    if source is None or source.shape is None or result is None:
        return None
    before = list(source.shape)
    target = []
    for axis, size in enumerate(result):
        if axis < len(before) and str(before[axis]) == str(size):
            target.append(0)
        elif isinstance(size, int):
            target.append(size)
        else:
            target.append(-1)
    dynamic_zero = any(isinstance(size, int) and size == 0 for size in result)
    return None if dynamic_zero or target.count(-1) > 1 else tuple(target)


def _constant(model: ir.Model, name: str, values: tuple[int, ...]) -> ir.Value:
    tensor = ir.tensor(np.array(values, np.int64), name=name)
    value = ir.Value(
        name=name,
        const_value=tensor,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape([len(values)]),
    )
    model.graph.register_initializer(value)
    return value


def attach_spu(model: ir.Model) -> None:
    """Given: bare `luvc::` nodes. Result: nodes that name their plugin, and the functions they call.

    With plugin_namespace and plugin_version TensorRT creates the plugin when it is registered and
    runs the function body when it is not; `aot` picks the ahead-of-time form. Must come last: the
    other passes would inline the functions.
    """
    operators = {operator.name: operator for operator in BODIES}
    used = set()
    for node in model.graph:
        if node.domain == DOMAIN:
            used.add(node.op_type)
            _order_attributes(node, operators[node.op_type])
            if operators[node.op_type] not in OPERATORS:
                continue
            node.attributes.add(ir.AttrString("plugin_namespace", DOMAIN))
            node.attributes.add(ir.AttrString("plugin_version", str(VERSION)))
            node.attributes.add(ir.AttrInt64("aot", 1))
    for name in sorted(used):
        body = ir.serde.deserialize_function(function_of(operators[name]).to_function_proto())
        model.functions[body.identifier()] = body
    if used:
        model.opset_imports[DOMAIN] = VERSION


def _order_attributes(node: ir.Node, operator: Operator) -> None:
    """The contract's order: TensorRT hands attributes to ahead-of-time plugins by position."""
    values = {name: node.attributes.pop(name) for name in operator.attributes}
    for name in operator.attributes:
        node.attributes.add(values[name])
