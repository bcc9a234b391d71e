"""Kernels for quantised weights against numpy: exact whole numbers, rows that know nothing of each other."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from luvc.engines.backends.ort.quantised import kernels, saturating, use_kernels
from luvc.engines.backends.ort.runner import OrtRunner
from luvc.engines.bundle.manifest import Quantisation

K, N = 256, 48
GROUP = 32
INT8, INT4 = onnx.TensorProto.INT8, onnx.TensorProto.INT4
random = np.random.default_rng(0)


def graph(kind, codes, scales, *extra, **attributes: Any):
    """y = x times the numbers of codes, as luvc writes it; int8 codes [K, N], int4 [N, K]."""
    data = codes.astype(np.int8)
    if kind == INT4:
        pairs = data.astype(np.uint8) & 15
        data = pairs[:, ::2] | pairs[:, 1::2] << 4
        attributes = {"block_size": GROUP} | attributes
    tensor = onnx.TensorProto(
        name="codes", data_type=kind, dims=codes.shape, raw_data=data.tobytes()
    )
    inputs = ["codes", "scales", *(t.name for t in extra)]
    given: dict[str, Any] = {"axis": 1} | attributes
    nodes = [helper.make_node("DequantizeLinear", inputs, ["w"], **given)]
    if kind == INT4:
        nodes.append(helper.make_node("Transpose", ["w"], ["w_t"], perm=[1, 0]))
    nodes.append(helper.make_node("MatMul", ["x", "w_t" if kind == INT4 else "w"], ["y"]))
    made = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", 1, ["B", "S", K])],
        [helper.make_tensor_value_info("y", 1, ["B", "S", N])],
        [tensor, numpy_helper.from_array(scales, "scales"), *extra],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)


def rewritten(model, saturates=None):
    """The model with the kernels, and bits turned where it is told to turn them."""
    bits = use_kernels(model, saturates)
    for tensor in model.graph.initializer:
        turned = np.frombuffer(tensor.raw_data, np.uint8) ^ np.uint8(bits.get(tensor.name, 0))
        tensor.raw_data = turned.tobytes()
    return model, bits


def run(model, x):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


def operators(model):
    return [n.op_type for n in model.graph.node]


def extreme():
    """Codes and activations whose sums in 16 bits would overflow."""
    codes = random.integers(-128, 128, (K, N))
    codes[:, : N // 2] = np.where(random.random((K, N // 2)) < 0.9, 127, -128)
    x = random.normal(size=(2, 5, K)).astype(np.float32)
    x[0] = np.abs(x[0]).max()
    return codes, x


def by_whole_numbers(codes, scales, x):
    """w8a8 as it is defined, in 64-bit whole numbers."""
    top = np.abs(x).max(-1, keepdims=True)
    rounded = np.rint(x / top / np.float32(1 / 127)).astype(np.int64)
    return (rounded @ codes.astype(np.int64)) * (scales.astype(np.float64) / 127) * top


def test_int8_products_are_exact_on_this_processor():
    codes, x = extreme()
    scales = random.uniform(0.01, 0.02, N).astype(np.float32)
    model, bits = rewritten(graph(INT8, codes, scales))
    assert "MatMulIntegerToFloat" in operators(model) and "MatMul" not in operators(model)
    assert bits == {"codes": 0x80 if saturating() else 0}
    wanted = by_whole_numbers(codes, scales, x)
    np.testing.assert_allclose(run(model, x), wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())


def test_unsigned_codes_are_exact_on_every_processor():
    codes, x = extreme()
    scales = random.uniform(0.01, 0.02, N).astype(np.float32)
    model, bits = rewritten(graph(INT8, codes, scales), saturates=True)
    assert bits == {"codes": 0x80}
    wanted = by_whole_numbers(codes, scales, x)
    np.testing.assert_allclose(run(model, x), wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())


def test_saturation_is_found():
    """Where the probe says so, signed codes do come out wrong."""
    codes, x = extreme()
    scales = np.full(N, 0.01, np.float32)
    wanted = by_whole_numbers(codes, scales, x)
    found = run(rewritten(graph(INT8, codes, scales), saturates=False)[0], x)
    far = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert far > 1e-2 if saturating() else far < 1e-6


@pytest.mark.parametrize("saturates", [True, None])
def test_a_row_in_a_batch_is_the_row_alone_to_the_last_bit(saturates):
    """Neither other rows nor padding change it; zeros come out as zeros."""
    codes = random.integers(-128, 128, (K, N))
    scales = random.uniform(0.01, 0.02, N).astype(np.float32)
    model, _ = rewritten(graph(INT8, codes, scales), saturates)
    x = random.normal(size=(6, 3, K)).astype(np.float32)
    x[2] *= 1e3
    x[4, 1:] = 0
    batch = run(model, x)
    for i in range(len(x)):
        np.testing.assert_array_equal(batch[i], run(model, x[i : i + 1])[0])
        np.testing.assert_array_equal(batch[i, 0], run(model, x[i : i + 1, :1])[0, 0])
    assert not batch[4, 1:].any()


def test_int4_products_are_those_of_the_codes():
    """Their activations are rounded by groups: less than 1 % of the largest result."""
    codes = random.integers(-8, 8, (N, K))
    scales = random.uniform(0.01, 0.02, (N, K // GROUP)).astype(np.float32)
    model, bits = rewritten(graph(INT4, codes, scales))
    assert operators(model) == ["MatMulNBits"] and bits == {"codes": 0x88}
    x = random.normal(size=(2, 5, K)).astype(np.float32)
    wanted = x @ (codes * scales.repeat(GROUP, 1)).T
    assert np.abs(run(model, x) - wanted).max() < 1e-2 * np.abs(wanted).max()
    np.testing.assert_allclose(
        run(graph(INT4, codes, scales), x), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max()
    )


def test_activations_are_rounded_once_for_all_products_that_read_them():
    codes = random.integers(-128, 128, (K, N))
    model = graph(INT8, codes, np.ones(N, np.float32))
    second = onnx.NodeProto()
    second.CopyFrom(model.graph.node[1])
    second.output[0] = "z"
    model.graph.node.append(second)
    model.graph.output.append(helper.make_tensor_value_info("z", 1, ["B", "S", N]))
    use_kernels(model)
    found = operators(model)
    assert found.count("MatMulIntegerToFloat") == 2 and found.count("QuantizeLinear") == 1


def as_output(model):
    model.graph.output.append(helper.make_tensor_value_info("w", 1, None))
    model.graph.node.append(helper.make_node("Identity", ["w"], ["copy"]))
    return model


def from_the_left(model):
    (product,) = [n for n in model.graph.node if n.op_type == "MatMul"]
    product.input[:] = ["w", "x"]
    return model


ZEROS = numpy_helper.from_array(np.zeros(N, np.int8), "zeros")
CODES8 = random.integers(-128, 128, (K, N))
SCALES8 = np.ones(N, np.float32)
OTHERS = {
    "another reader": lambda: as_output(graph(INT8, CODES8, SCALES8)),
    "from the left": lambda: from_the_left(graph(INT8, CODES8, SCALES8)),
    "zero points": lambda: graph(INT8, CODES8, SCALES8, ZEROS),
    "another axis": lambda: graph(INT8, CODES8, np.ones(K, np.float32), axis=0),
    "half precision": lambda: graph(INT8, CODES8, SCALES8.astype(np.float16)),
    "one scale": lambda: graph(INT8, CODES8, np.float32(1)),
    "other groups": lambda: graph(
        INT4, CODES8[:N] // 16, np.ones((N, 32), np.float32), block_size=8
    ),
    "scales of another shape": lambda: graph(INT4, CODES8[:N] // 16, np.ones((N, 3), np.float32)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_forms_stay_as_they_are(name):
    model = OTHERS[name]()
    before = model.SerializeToString()
    assert use_kernels(model) == {} and model.SerializeToString() == before


def test_the_description_says_which_kernels_run(workshop):
    bundle = workshop.bundle("qwen2-int8")
    with OrtRunner(bundle) as runner, OrtRunner(bundle, as_written=True) as plain:
        assert runner.rounds and not plain.rounds
        assert runner.description.endswith(kernels(bundle.manifest.weights, True))
        assert plain.description.endswith("int8 weights made numbers when loaded")
    with OrtRunner(workshop.bundle("qwen2")) as runner:
        assert not runner.rounds and runner.description.endswith("on CPU")
    assert "int4" in kernels(Quantisation(kind="int4", group_size=32), True)


def test_steps_of_a_batch_need_no_session_of_their_own(workshop):
    bundle = workshop.bundle("qwen2-int8")
    step = bundle.manifest.layouts[0].graphs.step
    with OrtRunner(bundle, threads=1) as runner:
        assert runner.session(step, packed=True) is runner.session(step)
