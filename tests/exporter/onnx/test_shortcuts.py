"""Graphs traced with shortcuts, against those of PyTorch's exporter as it is."""

from collections import Counter

import onnx_ir as ir
import pytest
import torch
from onnxscript import TracedOnnxFunction
from torch.export import Dim
from torch.fx import config
from torch.onnx._internal.exporter._registration import ONNXRegistry
from torch.onnx._internal.fx.passes import type_promotion
from transformers import InternVLForConditionalGeneration

from luvc.exporter.checkpoint.family import Family
from luvc.exporter.layouts.planned import image_geometry, plan_layout
from luvc.exporter.onnx import export as onnx_export
from luvc.exporter.onnx import shortcuts
from luvc.exporter.onnx.export import OPSET, Trace, trace
from luvc.exporter.onnx.inputs import prefill_request, step_request, vision_request
from luvc.exporter.ops.attention import NAME

from .test_composites import SCHEDULE


@pytest.fixture
def both(monkeypatch):
    """A graph traced with shortcuts, proved to be the one traced without, byte by byte."""

    def traced(request: Trace) -> ir.Model:
        found = trace(request)
        with monkeypatch.context() as patch:
            patch.setattr(shortcuts, "allowed", lambda: ())
            wanted = trace(request)
        files = [ir.serde.serialize_model(m).SerializeToString() for m in (found, wanted)]
        assert files[0] == files[1]
        return found

    assert shortcuts.allowed(), "prove the shortcuts with this PyTorch, then name it in PROVEN"
    return traced


@pytest.mark.parametrize("kind", [vision_request, prefill_request, step_request])
def test_graphs_of_a_model_are_the_same(workshop, both, kind):
    path = workshop.checkpoint(layers=2, vision_layers=1, image=112, text="qwen3")
    family = Family.load(str(path))
    model = InternVLForConditionalGeneration.from_pretrained(path, dtype=torch.float16).eval()
    model.set_attn_implementation(NAME)
    layout = plan_layout(family, image_geometry(family), 8, SCHEDULE).layout
    capacity = () if kind is vision_request else (32,)
    both(kind(model, family, layout, *capacity, torch.float16))


class Mixed(torch.nn.Module):
    """Numbers of unlike types, each of which PyTorch promotes: by a cast, a constant, or both ways."""

    def forward(self, x, n):
        half = x.half() + 1
        a = half * x - n / 3 + (n > 2)
        b = torch.where(n > 1, x, n) + torch.pow(n, 2.5) + n.float().mean() * 2
        first, second = (a + b).split(2, dim=1)
        return first, second.cumsum(1) + n.sum(), torch.rsqrt(n + 1), half


@pytest.mark.parametrize("decomposed", [False, True])
def test_promoted_numbers_are_the_same(both, monkeypatch, decomposed):
    if decomposed:
        monkeypatch.setattr(onnx_export, "_as_it_stands", lambda request, told: None)
    example = (torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.int64))
    rows = {0: Dim("N", min=2, max=16)}
    names = ["x", "n"]
    outputs = ["first", "second", "root", "half"]
    dynamic = dict.fromkeys(names, rows)
    model = both(Trace(Mixed().eval(), torch.float32, example, names, outputs, dynamic))
    assert Counter(node.op_type for node in model.graph)["Cast"] >= 6
    assert [str(v.dtype) for v in model.graph.outputs] == ["FLOAT"] * 3 + ["FLOAT16"]


def places() -> list:
    names = {ONNXRegistry: "from_torchlib", TracedOnnxFunction: "function_ir"}
    names |= {type_promotion._TypePromotionInterpreter: "run_node"}
    return [vars(owner)[name] for owner, name in names.items()] + [config.do_not_emit_stack_traces]


def test_pytorch_is_left_as_it_was():
    before = places()
    with pytest.raises(KeyError), shortcuts.shortcuts():
        with shortcuts.shortcuts():
            assert not {*places()} & {*before}
        assert not {*places()} & {*before}
        raise KeyError
    assert places() == before


def test_translations_read_once_are_those_pytorch_reads():
    """Also where an export added translations of its own to what it was given."""
    fresh = ONNXRegistry.from_torchlib(opset_version=OPSET)
    with shortcuts.shortcuts():
        ONNXRegistry.from_torchlib(opset_version=OPSET).register_op(
            torch.ops.aten.add.Tensor, lambda a, b: a
        )
        kept = ONNXRegistry.from_torchlib(opset_version=OPSET)
    assert kept.opset_version == fresh.opset_version and len(fresh.functions) > 400
    found, wanted = (
        {name: [known.onnx_function for known in metas] for name, metas in r.functions.items()}
        for r in (kept, fresh)
    )
    assert found == wanted
    traced = [f for metas in wanted.values() for f in metas if isinstance(f, TracedOnnxFunction)]
    said = [(f.function_ir.domain, [v.name for v in f.function_ir.inputs]) for f in traced[:20]]
    with shortcuts.shortcuts():
        assert said == [
            (f.function_ir.domain, [v.name for v in f.function_ir.inputs]) for f in traced[:20]
        ]
    assert len(said) == 20


def test_another_pytorch_exports_as_it_is(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "2.14.0")
        assert shortcuts.allowed.__wrapped__() == ()
    monkeypatch.delattr(type_promotion, "_TypePromotionInterpreter")
    assert shortcuts.allowed.__wrapped__() == ()


def test_a_registry_that_holds_more_is_read_for_each_graph():
    class Other:
        def __init__(self):
            self.functions, self.more = {}, {}

    read = shortcuts.read_once(lambda **asked: Other())
    assert read(opset_version=OPSET).more is not read(opset_version=OPSET).more
