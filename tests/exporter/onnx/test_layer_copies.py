"""Stamped graphs against graphs of which every layer was traced."""

from collections import Counter
from functools import partial

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from transformers import InternVLForConditionalGeneration

from luvc.engines.bundle.schedule import Merge, Prune, Schedule
from luvc.engines.bundle.tensors import cache_names
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.language.graphs import PrefillGraph, StepGraph
from luvc.exporter.layouts.planned import image_geometry, plan_layout
from luvc.exporter.onnx import export as onnx_export
from luvc.exporter.onnx import inputs as requests
from luvc.exporter.onnx.export import trace
from luvc.exporter.onnx.layer_copies import Unlike
from luvc.exporter.ops.attention import NAME
from luvc.exporter.vision.graph import VisionGraph

SCHEDULE = Schedule(
    ratio=2,
    vision=(Merge(layer=2, axis="width", group=2),),
    language=(Prune(layer=2, keep=3),),
)
REQUESTS = {
    "vision": requests.vision_request,
    "prefill": requests.prefill_request,
    "step": requests.step_request,
}


def fully(request, monkeypatch, *args):
    """The same request with every layer traced."""
    for graph in (VisionGraph, PrefillGraph, StepGraph):
        monkeypatch.setattr(graph, "trace_once", lambda self, alone: ())
    return request(*args)


@pytest.mark.parametrize("kind", REQUESTS)
def test_stamped_equals_traced(workshop, monkeypatch, kind):
    path = workshop.checkpoint(layers=3, vision_layers=3, image=112, text="qwen3")
    family = Family.load(str(path))
    model = InternVLForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()
    model.set_attn_implementation(NAME)
    layout = plan_layout(family, image_geometry(family), 8, SCHEDULE).layout
    args = (model, family, layout, *(() if kind == "vision" else (32,)), torch.float32)
    short = REQUESTS[kind](*args)
    like = None if kind == "step" else 0  # each span of a step has slots of its own number
    assert [(r.first, r.last, r.like) for r in short.runs] == [(0, 1, None), (2, 2, like)]
    stamped = trace(short)
    traced = trace(fully(REQUESTS[kind], monkeypatch, *args))
    for side in ("inputs", "outputs"):
        names = [[v.name for v in getattr(m.graph, side)] for m in (stamped, traced)]
        assert names[0] == names[1]
    if kind != "vision":
        assert [v.name for v in stamped.graph.inputs][-6:] == cache_names(
            dict.fromkeys(range(3), "full")
        )
    weights = [
        {n for n in m.graph.initializers if n.startswith("model.")} for m in (stamped, traced)
    ]
    assert weights[0] == weights[1]
    kinds = [Counter(n.op_type for n in m.graph) for m in (stamped, traced)]
    for op in ("MatMul", "Attention", "TensorScatter", "LayerNormalization", "SpectrumScore"):
        assert kinds[0][op] == kinds[1][op]
    feeds = random_feeds(stamped)
    for a, b in zip(run(stamped, feeds, model), run(traced, feeds, model), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_layer_that_knows_its_token_count_stands_for_no_other(workshop, monkeypatch):
    path = workshop.checkpoint(layers=3, vision_layers=3, image=112, text="qwen3")
    family = Family.load(str(path))
    model = InternVLForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()
    layout = plan_layout(family, image_geometry(family), 8, SCHEDULE).layout
    request = partial(requests.vision_request, model, family, layout, torch.float32)
    feeds = random_feeds(trace(request()))
    wanted = run(trace(request()), feeds, model)
    monkeypatch.setattr(onnx_export, "static_reshape", lambda model: None)
    with pytest.raises(Unlike, match=r"layer 0 reads .+ from outside"):
        trace(request())
    found = run(trace(request(alone=True)), feeds, model)
    np.testing.assert_allclose(found[0], wanted[0], atol=1e-5)


def random_feeds(model):
    random = np.random.default_rng(0)
    sizes = {"N": 2, "B": 2, "S": 30, "T": 3, "C0": 40, "C2": 36}
    feeds = {}
    for value in model.graph.inputs:
        shape = [d if isinstance(d, int) else sizes[str(d)] for d in value.shape]
        if value.dtype == ir.DataType.FLOAT:
            feeds[value.name] = random.normal(size=shape).astype(np.float32)
        else:
            feeds[value.name] = random.integers(0, 8, shape)
    if "visual_index" in feeds:
        V = feeds["visual_index"].shape[1]
        feeds["visual_index"] = np.tile(np.arange(2, 2 + V), (2, 1))
    if "last_index" in feeds:
        feeds["last_index"] = np.array([29, 27] if "visual_index" in feeds else [2, 1])
    return feeds


def run(model, feeds, source):
    parameters = dict(source.named_parameters(remove_duplicate=False))
    for name, value in model.graph.initializers.items():
        if name in parameters:
            value.const_value = ir.tensor(parameters[name].detach().numpy(), name=name)
    data = ir.serde.serialize_model(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return [np.asarray(x) for x in session.run(None, feeds)]
