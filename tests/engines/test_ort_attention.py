"""Causal attention in blocks: ONNX Runtime's own node on the same inputs, and the graphs of bundles."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from luvc.engines.backends.ort_attention import BLOCKS, SHORTEST, causal_in_blocks

TEXT = """
<ir_version: 10, opset_import: ["" : 24]>
attend (float["B", 6, "S", 16] q, float["B", 2, "S", 16] k, float["B", 2, "S", 16] v)
    => (float["B", 6, "S", 16] y) {{ y = Attention <is_causal = {causal}{scale}> (q, k, v) }}
"""


def run(model, feed):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feed)[0]


def inputs(tokens):
    random = np.random.default_rng(tokens)
    shapes = {"q": (2, 6, tokens, 16), "k": (2, 2, tokens, 16), "v": (2, 2, tokens, 16)}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("scale", ["", ", scale = 0.5"])
@pytest.mark.parametrize("tokens", [1, SHORTEST - 1, SHORTEST, SHORTEST + BLOCKS - 1, 777])
def test_results_are_those_of_the_whole_square(tokens, scale):
    model = parser.parse_model(TEXT.format(causal=1, scale=scale))
    feed = inputs(tokens)
    whole = run(model, feed)
    assert causal_in_blocks(model) == 1
    onnx.checker.check_model(model)
    np.testing.assert_allclose(run(model, feed), whole, rtol=0, atol=1e-6)


def test_attention_both_ways_is_left_alone():
    model = parser.parse_model(TEXT.format(causal=0, scale=""))
    assert causal_in_blocks(model) == 0 and not model.functions


def test_every_layer_of_a_prompt_is_split_and_no_step(workshop):
    bundle = workshop.bundle("qwen2")
    graphs = bundle.manifest.layouts[0].graphs
    counts = {}
    for name in ("vision", "prefill", "step"):
        model = onnx.load(bundle.file(getattr(graphs, name)), load_external_data=False)
        counts[name] = causal_in_blocks(model)
    assert counts == {"vision": 0, "prefill": bundle.manifest.language.layers, "step": 0}
