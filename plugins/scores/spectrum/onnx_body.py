"""The spectrum score as standard ONNX operators, for runtimes without the plugin.

The low-pass is the projection on the lowest cosines and sines, which equals the FFT form; the basis
is gathered from the exact twiddle table, folded to a constant when the graph is loaded. Letters:
../../contract.py.
"""

# Bodies are traced, not run: Python's types say nothing of them.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportOptionalOperand=false
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false

from onnxscript import script
from onnxscript.onnx_opset import opset24 as op

from ...onnx_functions import luvc


@script(luvc, default_opset=op)
def SpectrumScore(signal, visual_index, twiddle, cutoff: int, groups: int, band: int):  # noqa: D103
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
    # 1 of the signal less the low-pass, or 0: no branch, which some runtimes do not fold
    rest = op.Cast(op.Constant(value_int=band), to=1) * x - low
    energy = op.ReduceSum(rest * rest, [2], keepdims=0)
    energies = op.Unsqueeze(op.Reshape(energy, op.Shape(visual_index)), [1])
    return energies
