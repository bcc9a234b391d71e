"""Graphs that read codes and scales in place of weights."""

from pathlib import Path

import onnx_ir as ir

from .weights_file import WeightsFile


def read_codes(model: ir.Model, weights: WeightsFile, folder: Path) -> int:
    """Let products read what the file holds of their weights; returns how many weights changed.

    Given: w_t = Transpose(w); y = MatMul(x, w_t)
    Result, int8: y = MatMul(x, DequantizeLinear(codes [K, N], scales [N], axis = 1))
    Result, int4: w = DequantizeLinear(codes [N, K], scales [N, G], axis = 1, block_size = K / G), the
    rest as it was

    These are standard operators, so that every runtime can run the graph. What else reads a tied weight
    (the embedding) goes on reading numbers.

    Args:
        model: changed in place.
        weights: the bundle's.
        folder: of the graph.
    """
    if weights.rounding is None:
        return 0
    changed = 0
    for name, value in list(model.graph.initializers.items()):
        turns = [use.node for use in value.uses() if _turns(use.node)]
        if weights.quantised(name) and turns:
            numbers = _dequantised(model, weights, name, folder)
            for turn in turns:
                if weights.rounding.transposed:
                    turn.outputs[0].replace_all_uses_with(numbers)
                    model.graph.remove(turn, safe=True)
                else:
                    turn.replace_input_with(0, numbers)
            changed += 1
        if weights.quantised(name) and name not in weights:
            left = [use.node.op_type for use in value.uses()]
            if left:
                raise RuntimeError(f"{left[0]} reads {name}, of which the file holds codes alone")
            del model.graph.initializers[name]
    return changed


def _dequantised(model: ir.Model, weights: WeightsFile, name: str, folder: Path) -> ir.Value:
    """The output of a node that makes numbers of codes; it stands before all others."""
    assert weights.rounding is not None
    size = weights.rounding.how.group_size
    inputs = []
    for tensor in weights.codes_reference(name, folder):
        inputs.append(
            ir.Value(
                name=tensor.name,
                const_value=tensor,
                type=ir.TensorType(tensor.dtype),
                shape=tensor.shape,
            )
        )
        model.graph.register_initializer(inputs[-1])
    node = ir.node(
        "DequantizeLinear", inputs, {"axis": 1} | ({} if size is None else {"block_size": size})
    )
    node.outputs[0].name = f"{name}.numbers"
    node.outputs[0].shape = inputs[0].shape
    node.outputs[0].type = inputs[1].type
    model.graph.insert_before(model.graph[0], node)
    return node.outputs[0]


def _turns(node: ir.Node) -> bool:
    """Whether it transposes a weight for products alone."""
    return node.op_type == "Transpose" and all(
        use.node.op_type == "MatMul" and use.idx == 1 for use in node.outputs[0].uses()
    )
