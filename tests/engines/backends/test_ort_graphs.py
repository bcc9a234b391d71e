"""Graphs as rewritten for ONNX Runtime: the nodes that were there on the same inputs, and bundles' graphs."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from luvc.engines.backends.ort.attention import BLOCKS, SHORTEST, fuse_attention, group_queries
from luvc.engines.backends.ort.operators import fuse_operators

TEXT = """
<ir_version: 10, opset_import: ["" : 24]>
attend (float["B", 6, "S", 16] q, float["B", {heads}, "S", 16] k, float["B", {heads}, "S", 16] v)
    => (float["B", 6, "S", 16] y) {{ y = Attention <is_causal = {causal}{scale}> (q, k, v) }}
"""
LENGTHS = [1, SHORTEST - 1, SHORTEST, SHORTEST + BLOCKS - 1, 777]


def run(model, feed):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, feed)[0])


@pytest.mark.parametrize("scale", ["", ", scale = 0.5"])
@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("kind, heads", [("CausalAttention", 2), ("FullAttention", 6)])
def test_results_are_those_of_the_standard_node(kind, heads, tokens, scale):
    causal = int(kind == "CausalAttention")
    model = parser.parse_model(TEXT.format(causal=causal, heads=heads, scale=scale))
    random = np.random.default_rng(tokens)
    feed = {
        name: random.normal(size=(2, 6 if name == "q" else heads, tokens, 16)).astype(np.float32)
        for name in "qkv"
    }
    expected = run(model, feed)
    assert fuse_attention(model)[kind] == 1
    onnx.checker.check_model(model)
    np.testing.assert_allclose(run(model, feed), expected, rtol=0, atol=1e-5)


def test_grouped_heads_both_ways_are_left_alone():
    model = parser.parse_model(TEXT.format(causal=0, heads=2, scale=""))
    assert not any(fuse_attention(model).values()) and not model.functions


def test_every_layer_is_fused_and_no_step(workshop):
    bundle = workshop.bundle("qwen2")
    graphs, layers = bundle.manifest.layouts[0].graphs, bundle.manifest.language.layers
    counts = {}
    for name in ("vision", "prefill", "step"):
        model = onnx.load(bundle.file(getattr(graphs, name)), load_external_data=False)
        counts[name] = tuple(fuse_attention(model).values())
    assert counts["prefill"] == (layers, 0) and counts["step"] == (0, 0)
    assert counts["vision"][0] == 0 and counts["vision"][1] > 0


STEP = """
<ir_version: 10, opset_import: ["" : 24]>
step (float["B", 6, "T", 16] q, float["B", {heads}, "T", 16] new, int64["B"] slots,
      float["B", {heads}, 40, 16] k, float["B", {heads}, 40, 16] v, bool["B", {of}, "T", 40] mask)
    => (float["B", 6, "T", 16] y)
<float["B", {heads}, 40, 16] keys>
{{
    keys = TensorScatter <axis = 2> (k, new, slots)
    y = Attention <scale = 0.3> (q, keys, v, mask)
}}
"""


def step_feed(heads, tokens, of=1):
    random = np.random.default_rng(tokens)
    shapes = {"q": (3, 6, tokens, 16), "new": (3, heads, tokens, 16)}
    shapes |= dict.fromkeys("kv", (3, heads, 40, 16))
    feed = {n: random.normal(size=shape).astype(np.float32) for n, shape in shapes.items()}
    slots = np.array([0, 20, 40 - tokens])
    last = slots[:, None] + np.arange(tokens)
    mask = np.arange(40) <= last[:, None, :, None]
    return feed | {"slots": slots, "mask": np.broadcast_to(mask, (3, of, tokens, 40)).copy()}


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("heads", [1, 2, 3])
def test_queries_of_heads_that_share_keys_run_together(heads, tokens):
    model = parser.parse_model(STEP.format(heads=heads, of=1))
    feed = step_feed(heads, tokens)
    expected = run(model, feed)
    assert group_queries(model) == 1
    onnx.checker.check_model(model)
    np.testing.assert_allclose(run(model, feed), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("heads, of, threads", [(6, 1, 1), (2, 6, 1), (2, 1, 3)])
def test_heads_of_their_own_masks_of_heads_and_many_threads_are_left_alone(heads, of, threads):
    model = parser.parse_model(STEP.format(heads=heads, of=of))
    before = model.SerializeToString()
    assert group_queries(model, threads) == 0 and model.SerializeToString() == before


NORM = """
<ir_version: 10, opset_import: ["" : 24]>
norm (float["B", "T", 32] x) => (float["B", "T", 32] y)
<float[32] w = {{{weights}}}, float two = {{{power}}}, float e = {{0.001}}, int64[1] axis = {{{axis}}}>
{{
    squares = Pow (x, two)
    mean = ReduceMean <keepdims = 1> (squares, axis)
    shifted = Add (mean, e)
    root = Sqrt (shifted)
    inverse = Reciprocal (root)
    unit = Mul (x, inverse)
    y = Mul ({product})
}}
"""


def norm(product="w, unit", power=2, axis=-1):
    weights = ", ".join(str(1 + i / 8) for i in range(32))
    return parser.parse_model(NORM.format(weights=weights, product=product, power=power, axis=axis))


@pytest.mark.parametrize("product", ["w, unit", "unit, w"])
def test_norms_are_one_operator(product):
    model = norm(product)
    x = np.random.default_rng(0).normal(size=(2, 3, 32)).astype(np.float32)
    expected = run(model, {"x": x})
    assert fuse_operators(model) == {"norms": 1, "rotations": 0, "unread": 6}
    assert [n.op_type for n in model.graph.node] == ["SimplifiedLayerNormalization"]
    np.testing.assert_allclose(run(model, {"x": x}), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("other", [{"power": 3}, {"axis": 1}, {"product": "x, unit"}])
def test_what_only_looks_like_a_norm_is_left_alone(other):
    model = norm(**other)
    before = [n.op_type for n in model.graph.node]
    assert fuse_operators(model)["norms"] == 0
    assert [n.op_type for n in model.graph.node] == before


ROTATION = """
<ir_version: 10, opset_import: ["" : 24]>
turn (float["B", 3, "T", 16] x, float["B", "T", 8] a, float["B", "T", 8] b) => (float["B", 3, "T", 16] y)
<float["B", "T", 16] c, float["B", "T", 16] s,
 float["B", 3, "T", {half}] low, float["B", 3, "T", {rest}] high,
 int64[1] zero = {{0}}, int64[1] half = {{{half}}}, int64[1] end = {{99}}, int64[1] last = {{3}},
 int64[1] one = {{1}}, float scale = {{1.25}}>
{{
    angles = Concat <axis = -1> ({angles})
    cos = Cos (angles)
    c = Mul (cos, scale)
    s = Sin (angles)
    c4 = Unsqueeze (c, one)
    s4 = Unsqueeze (s, one)
    low = Slice (x, zero, half, last, one)
    high = Slice (x, half, end, last, one)
    minus = Neg (high)
    turned = Concat <axis = -1> ({halves})
    plain = Mul (x, c4)
    across = Mul (turned, s4)
    y = Add (plain, across)
}}
"""


def rotation(angles="a, a", halves="minus, low", half=8):
    return parser.parse_model(
        ROTATION.format(angles=angles, halves=halves, half=half, rest=16 - half)
    )


def rotation_feed():
    random = np.random.default_rng(0)
    shapes = {"x": (2, 3, 5, 16), "a": (2, 5, 8), "b": (2, 5, 8)}
    return {n: random.normal(size=shape).astype(np.float32) for n, shape in shapes.items()}


def test_rotations_are_one_operator():
    model, feed = rotation(), rotation_feed()
    expected = run(model, feed)
    assert fuse_operators(model)["rotations"] == 1
    names = [n.op_type for n in model.graph.node]
    assert names.count("RotaryEmbedding") == 1 and not {"Neg", "Slice", "Add"} & set(names)
    np.testing.assert_allclose(run(model, feed), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("other", [{"angles": "a, b"}, {"halves": "minus, high"}, {"half": 4}])
def test_what_only_looks_like_a_rotation_is_left_alone(other):
    model = rotation(**other)
    before = run(model, rotation_feed())
    assert fuse_operators(model)["rotations"] == 0
    np.testing.assert_array_equal(run(model, rotation_feed()), before)


def test_what_an_inner_graph_reads_stays():
    model = parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 24]>
    choose (float[4] x, bool pick) => (float[4] y)
    {
        twice = Add (x, x)
        unread = Neg (twice)
        y = If (pick) <
            then_branch = yes () => (a) { a = Abs (twice) },
            else_branch = no () => (b) { b = Neg (x) }
        >
    }
    """)
    assert fuse_operators(model)["unread"] == 1
    x = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(run(model, {"x": x, "pick": np.array(True)}), 2 * x)


def test_a_step_has_one_norm_and_one_rotation_where_there_were_many_operators(workshop):
    bundle = workshop.bundle("qwen2")
    graphs, layers = bundle.manifest.layouts[0].graphs, bundle.manifest.language.layers
    model = onnx.load(bundle.file(graphs.step), load_external_data=False)
    assert group_queries(model) == layers
    found = fuse_operators(model)
    assert (found["norms"], found["rotations"]) == (2 * layers + 1, 2 * layers)
    assert not {"Pow", "Neg"} & {n.op_type for n in model.graph.node}
