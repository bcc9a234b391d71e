"""Graphs that are traced without decompositions, against PyTorch and against the decomposed."""

from collections import Counter

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch.export import Dim
from transformers import InternVLForConditionalGeneration

from luvc.engines.bundle.schedule import Prune, Schedule
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.layouts.planned import image_geometry, plan_layout
from luvc.exporter.onnx import export as onnx_export
from luvc.exporter.onnx.export import Trace, trace
from luvc.exporter.onnx.inputs import prefill_request
from luvc.exporter.ops.attention import NAME

from .test_layer_copies import random_feeds, run

SCHEDULE = Schedule(ratio=2, language=(Prune(layer=1, keep=3),))


def test_both_ways_give_one_graph(workshop, monkeypatch):
    path = workshop.checkpoint(layers=2, vision_layers=1, image=112, text="qwen3")
    family = Family.load(str(path))
    model = InternVLForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()
    model.set_attn_implementation(NAME)
    layout = plan_layout(family, image_geometry(family), 8, SCHEDULE).layout
    args = (model, family, layout, 32, torch.float32)
    whys: list[str] = []
    short = trace(prefill_request(*args), whys.append)
    assert whys == []
    monkeypatch.setattr(onnx_export, "_as_it_stands", lambda request, told: None)
    ordinary = trace(prefill_request(*args))
    for side in ("inputs", "outputs"):
        found, wanted = (
            [(v.name, v.dtype, str(v.shape)) for v in getattr(m.graph, side)]
            for m in (short, ordinary)
        )
        assert found == wanted
    named = [{n for n in m.graph.initializers if "val_" not in n} for m in (short, ordinary)]
    assert named[0] == named[1] and any(n.startswith("model.") for n in named[0])
    kinds = [
        Counter(n.op_type for n in m.graph if n.op_type != "Constant") for m in (short, ordinary)
    ]
    assert kinds[0] == kinds[1]
    feeds = random_feeds(short)
    for a, b in zip(run(short, feeds, model), run(ordinary, feeds, model), strict=True):
        np.testing.assert_array_equal(a, b)


class Composites(torch.nn.Module):
    """Every operator that composites.py translates, on a picture [N, 4, 6, 8]."""

    def __init__(self):
        super().__init__()
        self.same = torch.nn.Conv2d(4, 4, (2, 3), padding="same", dilation=(1, 2), bias=False)
        self.valid = torch.nn.Conv2d(4, 6, 3, padding="valid", stride=2)

    def forward(self, x):
        a = torch.nn.functional.dropout(self.same(x), 0.5, self.training)
        b = self.valid(a).transpose(1, 2).contiguous().flatten(1, 2).flatten(2)
        c = x.flatten().unflatten(0, (-1, 4, 6, 8)).unflatten(1, (2, 2)).flatten(0, 1)
        c = c.reshape(x.shape[0], -1, 2, c.shape[3]).narrow(3, 2, 4).narrow(0, 0, x.shape[0])
        first, second, rest = a.square().chunk(3, dim=3)
        wide = a.mean((1, 2, 3), keepdim=True).expand_as(a)
        chosen = (a > 0) & (x > wide) | (a < -1)
        return b, c, first - second, rest, chosen, chosen.to(torch.int64), a.to(torch.float32)


def ran(module, *, whys=None):
    """The module's outputs in ONNX Runtime and in PyTorch, at another batch than was traced."""
    outputs = [f"out_{i}" for i in range(len(module(torch.zeros(2, 4, 6, 8))))]
    dynamic = {"x": {0: Dim("N", min=1, max=16)}}
    example = (torch.zeros(2, 4, 6, 8),)
    request = Trace(module, torch.float32, example, ["x"], outputs, dynamic)
    model = trace(request, (lambda why: None) if whys is None else whys.append)
    x = torch.randn(5, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    for name, p in module.named_parameters():
        model.graph.initializers[name].const_value = ir.tensor(p.detach().numpy(), name=name)
    data = ir.serde.serialize_model(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        wanted = [y.numpy() for y in module(x)]
    return [np.asarray(y) for y in session.run(None, {"x": x.numpy()})], wanted


def test_translations_compute_what_pytorch_does():
    torch.manual_seed(0)
    whys: list[str] = []
    found, wanted = ran(Composites().eval(), whys=whys)
    assert whys == []
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=1e-5)


def in_place(x):
    y = x.clone()
    y[:, 1:3] += 1
    return y


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: x.ravel() + 1, "aten.ravel.default"),
        (in_place, "aten.add_.Tensor"),
        (lambda x: x.narrow(3, -3, 2) * 2, "narrow from the end"),
        (lambda x: (x * 9).to(torch.int64) & 5, "aten.__and__.Scalar"),
    ],
    ids=["no-translation", "in-place", "refused", "unknown"],
)
def test_other_operators_are_decomposed(function, why):
    class Other(torch.nn.Module):
        def forward(self, x):
            return (function(x),)

    whys: list[str] = []
    (found,), (wanted,) = ran(Other(), whys=whys)
    assert len(whys) == 1 and why in whys[0]
    np.testing.assert_array_equal(found, wanted)
