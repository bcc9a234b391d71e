"""ONNX function bodies of the SPU operators, for runtimes without the plugins.

Each body is a FunctionProto of standard opset-24 operators under the operator's own name, so one
file serves ONNX Runtime (inlines the body), TensorRT without the plugins (parses the body) and
TensorRT with them (creates the plugin). The low-pass is the projection on the lowest cosines and
sines, which equals the FFT form; the basis is gathered from the exact twiddle table, folded to a
constant when the graph is loaded. Letters: contract.py.
"""

# The bodies below are traced, not run: Python's types say nothing of them.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportOptionalOperand=false
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

import onnx
import onnxscript
from onnxscript import script
from onnxscript.onnx_opset import opset24 as op

from .contract import DOMAIN, OPERATORS, VERSION, Operator

luvc = onnxscript.values.Opset(DOMAIN, VERSION)
INFINITY = float("inf")


@script(luvc, default_opset=op)
def SpectrumScore(signal, visual_index, twiddle, cutoff: int, groups: int):  # noqa: D103
    rows = op.Cast(op.GatherND(signal, op.Unsqueeze(visual_index, [2]), batch_dims=1), to=1)
    length = op.Shape(twiddle, start=0, end=1)
    x = op.Reshape(rows, op.Concat([-1], length, op.Shape(signal, start=2, end=3), axis=0))
    n = op.Squeeze(length)
    token = op.Range(0, n, 1)
    bin = op.Range(0, op.Constant(value_int=cutoff) + 1, 1)
    # n * f is reduced modulo the length in integers: a float angle would lose digits at large V
    turn = op.Mod(op.Unsqueeze(token, [1]) * op.Unsqueeze(bin, [0]), n)
    basis = op.Transpose(op.Gather(twiddle, turn, axis=0), perm=[0, 2, 1])
    # bins 0 and length/2 stand for one frequency, the others for a conjugate pair
    single = op.Mod(bin * 2, n) == 0
    weight = op.Where(single, 1.0, 2.0) / op.Cast(n, to=1)
    table = op.Reshape(basis * op.Sqrt(weight), op.Concat(length, [-1], axis=0))
    low = op.MatMul(table, op.MatMul(op.Transpose(table, perm=[1, 0]), x))
    energy = op.ReduceSum(low * low, [2], keepdims=0)
    energies = op.Unsqueeze(op.Reshape(energy, op.Shape(visual_index)), [1])
    return energies


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


FUNCTIONS = {f.name: f for f in (SpectrumScore, SpectrumSelect, GatherTokens)}


def schema(operator: Operator) -> onnx.defs.OpSchema:
    """The ONNX operator schema of a contract entry; float tensors share the type T."""
    S = onnx.defs.OpSchema
    names = {"float16": "float16", "bfloat16": "bfloat16", "float32": "float", "int64": "int64"}

    def parameter(tensor):
        floats = len(tensor.dtypes) > 1
        return S.FormalParameter(
            tensor.name, "T" if floats else f"tensor({names[tensor.dtypes[0]]})"
        )

    floats = [f"tensor({names[d]})" for t in operator.inputs if len(t.dtypes) > 1 for d in t.dtypes]
    return S(
        operator.name,
        DOMAIN,
        VERSION,
        inputs=[parameter(t) for t in operator.inputs],
        outputs=[parameter(t) for t in operator.outputs],
        type_constraints=[("T", floats, "")] if floats else [],
        attributes=[S.Attribute(a, S.AttrType.INT, "", required=True) for a in operator.attributes],
    )


SCHEMAS = {o.name: schema(o) for o in OPERATORS}
