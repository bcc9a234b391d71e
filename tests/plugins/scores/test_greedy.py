"""The greedy order: its ONNX body against the reference, and in the graphs that engines take."""

import time

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper as h

from luvc.plugins.onnx_functions import function_of
from luvc.plugins.scores.greedy.contract import ORDER
from luvc.plugins.scores.greedy.reference import greedy_order

from ...exporter.tensorrt_log import logger


def order_model(n: int, keep: int) -> onnx.ModelProto:
    info = h.make_tensor_value_info
    names = [tensor.name for tensor in ORDER.inputs]
    node = h.make_node(ORDER.name, names, ["order"], domain="luvc", keep=keep)
    shapes = [["G", n, n], ["G", n], ["G", n]]
    inputs = [info(name, 1, shape) for name, shape in zip(names, shapes, strict=True)]
    return h.make_model(
        h.make_graph([node], "greedy", inputs, [info("order", 1, ["G", n])]),
        opset_imports=[h.make_opsetid("", 24), h.make_opsetid("luvc", 1)],
        ir_version=11,
        functions=[function_of(ORDER).to_function_proto()],
    )


def run_body(keep: int, *tensors: torch.Tensor) -> np.ndarray:
    model = order_model(tensors[1].shape[1], keep)
    onnx.checker.check_model(model, full_check=True)
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=providers)
    feeds = {t.name: x.numpy() for t, x in zip(ORDER.inputs, tensors, strict=True)}
    return np.asarray(session.run(None, feeds)[0])


def by_hand(keep: int, *tensors: torch.Tensor) -> np.ndarray:
    """Run by run, pick by pick; ties go to the lower position."""
    found = []
    for distance, first, weight in zip(*(x.double().numpy() for x in tensors), strict=True):
        picked = [int(np.argmax(first))]
        while len(picked) < keep:
            rest = [i for i in range(len(first)) if i not in picked]
            worth = [weight[i] * distance[i, picked].min() for i in rest]
            picked.append(rest[int(np.argmax(worth))])
        order = np.zeros(len(first), np.float32)
        order[picked] = keep - np.arange(keep)
        found.append(order)
    return np.stack(found)


def tensors(groups: int, n: int, steps: int = 0, seed: int = 0) -> list[torch.Tensor]:
    """Distances, firsts and weights; in so many steps, so that there are ties."""
    random = np.random.default_rng(seed)
    half = random.uniform(0, 2, (groups, n, n))
    distance = np.triu(half, 1) + np.triu(half, 1).transpose(0, 2, 1)
    found = [distance, random.uniform(0, 1, (groups, n)), random.uniform(0.5, 1.5, (groups, n))]
    if steps:
        found = [np.round(x * steps) / steps for x in found]
    return [torch.from_numpy(x.astype(np.float32)) for x in found]


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize(
    ("groups", "n", "keep"), [(1, 40, 13), (3, 24, 7), (2, 24, 1), (2, 24, 24), (1, 1, 1)]
)
def test_reference_and_body_equal_the_definition(groups, n, keep, steps):
    feed = tensors(groups, n, steps, seed=n + keep)
    wanted = by_hand(keep, *feed)
    assert np.array_equal(greedy_order(*feed, keep), wanted)
    assert np.array_equal(run_body(keep, *feed), wanted)


def test_ties_go_to_the_lower_position():
    feed = [torch.ones(2, *(9,) * axes) for axes in (2, 1, 1)]
    wanted = [[4, 3, 2, 1, 0, 0, 0, 0, 0]] * 2
    assert greedy_order(*feed, 4).tolist() == run_body(4, *feed).tolist() == wanted


def test_copies_of_what_was_picked_come_last():
    """A picture's blank tokens are all alike: at distance 0, and they are not picked twice."""
    distance = torch.tensor([[0.0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [1, 1, 1, 0]])[None]
    feed = distance, torch.tensor([[3.0, 3, 3, 0]]), torch.ones(1, 4)
    assert greedy_order(*feed, 3).tolist() == run_body(3, *feed).tolist() == [[3, 1, 0, 2]]


def test_a_large_picture_takes_no_time():
    """3,000 tokens, a third of which are picked: a scan of 1,000 steps."""
    feed, start = tensors(1, 3000), time.perf_counter()
    assert np.array_equal(run_body(1000, *feed), greedy_order(*feed, 1000))
    assert time.perf_counter() - start < 20


def test_the_body_ends_by_its_shapes():
    """A Loop's condition could be made true for ever; a Scan has none."""
    (scan,) = [n for n in function_of(ORDER).to_function_proto().node if n.op_type == "Scan"]
    (inner,) = [a.g for a in scan.attribute if a.HasField("g")]
    assert not any(a.HasField("g") for node in inner.node for a in node.attribute)


@pytest.mark.parametrize(("n", "keep"), [(64, 20), (5000, 700)])
def test_tensorrt_rtx_builds_it(tmp_path, n, keep):
    """Also beyond the 3,840 entries that its TopK ends at."""
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    path = tmp_path / "greedy.onnx"
    onnx.save(order_model(n, keep), path)
    log = logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, log).parse_from_file(str(path))
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for tensor in ORDER.inputs:
        shape = (n,) * (len(tensor.shape) - 1)
        profile.set_shape(tensor.name, (1, *shape), (1, *shape), (4, *shape))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None
