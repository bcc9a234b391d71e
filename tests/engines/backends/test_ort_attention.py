"""Attention as rewritten for ONNX Runtime: its own node on the same inputs, and the graphs of bundles."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from luvc.engines.backends.ort.attention import BLOCKS, SHORTEST, fuse_attention

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
