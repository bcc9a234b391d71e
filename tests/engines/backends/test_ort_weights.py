"""One copy of the weights for all CPU sessions: the same numbers as ONNX Runtime's own loading."""

import os
import shutil

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest

from luvc.engines.backends.ort.runner import OrtRunner
from luvc.engines.backends.ort.weights import SharedWeights, read_transposed
from luvc.errors import LuvcError


def plain(path):
    """The file as ONNX Runtime loads it by itself."""
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.fixture
def step(workshop):
    bundle = workshop.bundle("qwen2")
    return bundle.file(bundle.manifest.layouts[0].graphs.step)


def feed(session, batch):
    random = np.random.default_rng(0)
    inputs = {}
    for value in session.get_inputs():
        shape = [{"B": batch, "T": 1}.get(d, d) for d in value.shape]
        if value.type == "tensor(int64)":
            inputs[value.name] = np.ones(shape, np.int64) * (value.name != "last_index")
        else:
            inputs[value.name] = random.normal(size=shape).astype(np.float32)
    return inputs


@pytest.mark.parametrize("packed", [False, True])
def test_sessions_compute_what_the_file_says(step, packed):
    reference = plain(step)
    inputs = feed(reference, batch=3)
    ours = SharedWeights().session(step, onnxruntime.SessionOptions(), packed)
    results = [[np.asarray(x) for x in s.run(None, inputs)] for s in (reference, ours)]
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1.0, np.abs(a).max()))


def test_no_weight_is_transposed_at_load(step):
    model = onnx.load(step, load_external_data=False)
    weights = {i.name for i in model.graph.initializer if len(i.dims) == 2}
    linear = sum(n.op_type == "MatMul" for n in model.graph.node)
    assert read_transposed(model) == linear == 4 * 7 + 1  # four layers of seven, and the logits
    assert not [n for n in model.graph.node if n.op_type == "Transpose" and n.input[0] in weights]
    assert read_transposed(model) == 0


def test_weights_are_in_memory_once(workshop):
    runner = OrtRunner(workshop.bundle("qwen2"), threads=1)
    runner.prepare(runner.bundle.manifest.layouts[0])
    (file,) = runner._weights._files.values()
    first, last = file.ctypes.data, file.ctypes.data + file.nbytes
    values = runner._weights._values.values()
    assert len(values) > 30 and all(first <= v.data_ptr() < last for v in values)


def test_a_session_holds_its_own_weights_alone(workshop, tmp_path):
    """A quarter of a GiB that the graph does not read takes no memory."""
    bundle = workshop.bundle("qwen2")
    graph = bundle.file(bundle.manifest.layouts[0].graphs.vision)
    for path in (graph, graph.with_name("weights.safetensors")):
        shutil.copy(path, tmp_path)
    weights = tmp_path / "weights.safetensors"
    os.truncate(weights, weights.stat().st_size + (256 << 20))
    before = psutil.Process().memory_info().rss
    shared = SharedWeights()
    shared.session(tmp_path / graph.name, onnxruntime.SessionOptions())
    assert psutil.Process().memory_info().rss - before < 128 << 20


def test_a_weight_outside_the_file_is_refused(step, tmp_path):
    weights = step.with_name("weights.safetensors").read_bytes()
    (tmp_path / "weights.safetensors").write_bytes(weights[: len(weights) // 2])
    (tmp_path / step.name).write_bytes(step.read_bytes())
    with pytest.raises(LuvcError, match=r"does not lie in weights\.safetensors"):
        SharedWeights().session(tmp_path / step.name, onnxruntime.SessionOptions())
