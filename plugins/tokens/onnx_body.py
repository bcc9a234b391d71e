"""Select and gather as standard ONNX operators, for runtimes without the plugins. Letters: ../contract.py."""

# Bodies are traced, not run: Python's types say nothing of them.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportOptionalOperand=false
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from onnxscript import script
from onnxscript.onnx_opset import opset24 as op

from ..onnx_functions import luvc

INFINITY = float("inf")


@script(luvc, default_opset=op)
def SpectrumSelect(energies, visual_index, positions, keep: int, groups: int):  # noqa: D103
    shape = op.Shape(visual_index)
    V = op.Shape(visual_index, start=1, end=2)
    k = op.Reshape(op.Constant(value_int=keep), [1])
    parts = op.Reshape(op.Constant(value_int=groups), [1])
    split = op.Concat([-1], V / parts, axis=0)
    scores = op.Reshape(op.ReduceSum(energies, [1], keepdims=0), split)
    scores = op.Where(op.IsNaN(scores), INFINITY, scores)  # ordered as in the kernel
    # A token's rank is the number of tokens before it: higher, or equal and at a lower position.
    # TopK would do, but TensorRT's ends at 3840 and leaves the order of ties open. The V * V
    # comparisons are fewer than the attention scores of one head.
    ones = visual_index * 0 + 1
    token = op.CumSum(op.Reshape(ones, split), 1)
    own, rival = op.Unsqueeze(scores, [2]), op.Unsqueeze(scores, [1])
    tie = op.And(rival == own, op.Unsqueeze(token, [1]) < op.Unsqueeze(token, [2]))
    rank = op.ReduceSum(op.Cast(op.Or(rival > own, tie), to=1), [2], keepdims=0)
    stays = op.CastLike(op.Reshape(rank, shape) < op.Cast(k / parts, to=1), visual_index)
    # A stable partition by cumulative sums puts the kept ordinals first, in order. The scatter must
    # be a permutation in TensorRT.
    seen = op.CumSum(stays, 1)
    ordinal = op.CumSum(ones, 1) - 1
    slot = op.Where(stays == 1, seen - 1, k + (ordinal - seen))
    kept = op.Slice(op.ScatterElements(ordinal, slot, ordinal, axis=1), [0], k, [1])
    # The same for the whole sequence, text included
    text = op.Squeeze(op.Slice(positions, [0], [1], [2]), [2]) * 0 + 1
    survives = op.ScatterElements(text, visual_index, stays, axis=1)
    count = op.CumSum(survives, 1)
    place = op.CumSum(text, 1) - 1
    total = op.Shape(positions, start=1, end=2) - V + k
    row = op.Where(survives == 1, count - 1, total + (place - count))
    keep_index = op.Slice(op.ScatterElements(place, row, place, axis=1), [0], total, [1])
    kept_position = op.GatherElements(visual_index, kept, axis=1)
    next_visual_index = op.GatherElements(count - 1, kept_position, axis=1)
    return keep_index, next_visual_index, kept


@script(luvc, default_opset=op)
def GatherTokens(hidden, positions, keep_index):  # noqa: D103
    rows = op.Unsqueeze(keep_index, [2])
    hidden_kept = op.GatherND(hidden, rows, batch_dims=1)
    positions_kept = op.GatherND(positions, rows, batch_dims=1)
    return hidden_kept, positions_kept
