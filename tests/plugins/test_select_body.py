"""The selection's function body at sizes beyond TensorRT's TopK: it builds, and equals the reference."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper as h

from luvc.plugins.onnx_functions import function_of
from luvc.plugins.tokens.contract import SELECT
from luvc.plugins.tokens.reference import spectrum_select

from ..exporter.tensorrt_log import logger

SIZES = pytest.mark.parametrize(
    ("V", "keep", "groups"), [(5000, 2500, 1), (9000, 4500, 1), (9000, 6000, 3)]
)


def select_model(V, keep, groups) -> onnx.ModelProto:
    info = h.make_tensor_value_info
    node = h.make_node(
        "SpectrumSelect",
        ["energies", "index", "positions"],
        ["rows", "next", "kept"],
        domain="luvc",
        keep=keep,
        groups=groups,
        plugin_namespace="luvc",
        plugin_version="1",
    )
    inputs = [
        info("energies", 1, ["B", 1, V]),
        info("index", 7, ["B", V]),
        info("positions", 7, ["B", "S", 1]),
    ]
    outputs = [
        info("rows", 7, ["B", "R"]),
        info("next", 7, ["B", keep]),
        info("kept", 7, ["B", keep]),
    ]
    return h.make_model(
        h.make_graph([node], "select", inputs, outputs),
        opset_imports=[h.make_opsetid("", 24), h.make_opsetid("luvc", 1)],
        ir_version=11,
        functions=[function_of(SELECT).to_function_proto()],
    )


def run_body(model, **feed):
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=providers)
    feeds = {name: np.asarray(value) for name, value in feed.items()}
    return [np.asarray(x) for x in session.run(None, feeds)]


@SIZES
def test_builds_at_any_size(tmp_path, V, keep, groups):
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    path = tmp_path / "select.onnx"
    onnx.save(select_model(V, keep, groups), path)
    log = logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, log).parse_from_file(str(path))
    assert all(network.get_layer(i).type.name != "TOPK" for i in range(network.num_layers))
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for name, shape in {"energies": (1, V), "index": (V,)}.items():
        profile.set_shape(name, (1, *shape), (1, *shape), (4, *shape))
    profile.set_shape("positions", (1, V + 2, 1), (1, V + 30, 1), (4, V + 99, 1))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None


@SIZES
def test_equals_the_reference(V, keep, groups):
    energies = torch.rand(1, 1, V, generator=torch.Generator().manual_seed(V))
    energies[..., ::3] = 0.5  # ties: the lower positions win
    index, positions = torch.arange(V)[None] + 7, torch.arange(V + 30)[None, :, None]
    model = select_model(V, keep, groups)
    found = run_body(model, energies=energies, index=index, positions=positions)
    wanted = spectrum_select(energies, index, positions, keep, groups)
    for ours, theirs in zip(found, wanted, strict=True):
        assert np.array_equal(ours, theirs.numpy())


def test_broken_energies_keep_as_many():
    """NaN and infinity must not send the scatter out of bounds."""
    energies = np.array([1, np.nan, np.inf, 0, np.nan, np.inf, -1, 2], np.float32)[None, None]
    index, positions = np.arange(8)[None], np.zeros((1, 9, 1), np.int64)
    model = select_model(8, 5, 1)
    rows, _, kept = run_body(model, energies=energies, index=index, positions=positions)
    assert kept.tolist() == [[1, 2, 4, 5, 7]] and rows.tolist() == [[1, 2, 4, 5, 7, 8]]
