"""The gated delta rule: reference, body and ONNX Runtime's kernel against Hugging Face's, token by token."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from transformers.models.qwen3_5.modeling_qwen3_5 import torch_recurrent_gated_delta_rule

from luvc.engines.backends.ort.recurrence import use_recurrence
from luvc.plugins.onnx_functions import function_of
from luvc.plugins.recurrence.contract import DELTA
from luvc.plugins.recurrence.reference import CHUNK, gated_delta

HEADS = 3
KEY, VALUE = 8, 5
NAMES = [tensor.name for tensor in DELTA.inputs]


def given(tokens: int, alike: bool = False) -> list[torch.Tensor]:
    """Inputs of two rows; keys that are all alike are what a plain wall in a picture makes."""
    random = torch.Generator().manual_seed(tokens)
    made = [torch.randn(2, tokens, HEADS, n, generator=random) for n in (KEY, KEY, VALUE)]
    if alike:
        made[1] = made[1][:, :1].expand_as(made[1])
    made[1] = made[1] / made[1].norm(dim=-1, keepdim=True)
    state = torch.randn(2, HEADS, KEY, VALUE, generator=random)
    decay = -torch.rand(2, tokens, HEADS, generator=random) * (0.01 if alike else 2)
    share = torch.rand(2, tokens, HEADS, generator=random)
    return [*(x.flatten(2) for x in made), state, decay, share]


def by_hugging_face(inputs: list[torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    q, k, v = (x.unflatten(2, (HEADS, -1)) for x in inputs[:3])
    state, decay, share = inputs[3:]
    read, after = torch_recurrent_gated_delta_rule(
        q * KEY**0.5, k, v, decay, share, initial_state=state, output_final_state=True
    )
    return read.flatten(2).numpy(), after.numpy()


def model() -> onnx.ModelProto:
    """One node and its body."""
    node = helper.make_node(DELTA.name, NAMES, ["output", "after"], domain="luvc", heads=HEADS)
    values = [
        helper.make_tensor_value_info(t.name, TensorProto.FLOAT, [None] * len(t.shape))
        for t in (*DELTA.inputs, *DELTA.outputs)
    ]
    graph = helper.make_graph([node], "delta", values[: len(NAMES)], values[len(NAMES) :])
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid("luvc", 1)]
    body = function_of(DELTA).to_function_proto()
    return helper.make_model(graph, functions=[body], opset_imports=opsets, ir_version=11)


def run(made: onnx.ModelProto, inputs: list[torch.Tensor]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(made.SerializeToString())
    feed = {name: x.numpy() for name, x in zip(NAMES, inputs, strict=True)}
    return [np.asarray(found) for found in session.run(None, feed)]


@pytest.mark.parametrize("tokens", [1, 3, CHUNK, 2 * CHUNK + 7])
@pytest.mark.parametrize("alike", [False, True])
def test_the_reference_is_hugging_faces_token_by_token(tokens, alike):
    inputs = given(tokens, alike)
    found = gated_delta(*inputs, HEADS)
    for ours, theirs in zip(found, by_hugging_face(inputs), strict=True):
        assert np.abs(ours.numpy() - theirs).max() <= 2e-5 * np.abs(theirs).max()


@pytest.mark.parametrize("tokens", [1, 9])
def test_the_body_is_hugging_faces(tokens):
    inputs = given(tokens)
    for ours, theirs in zip(run(model(), inputs), by_hugging_face(inputs), strict=True):
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize("tokens", [1, CHUNK + 9])
def test_onnx_runtimes_kernel_is_hugging_faces(tokens):
    made, inputs = model(), given(tokens)
    assert use_recurrence(made) == 1
    assert [node.op_type for node in made.graph.node] == ["LinearAttention"]
    for ours, theirs in zip(run(made, inputs), by_hugging_face(inputs), strict=True):
        assert np.abs(ours - theirs).max() <= 2e-5 * np.abs(theirs).max()
