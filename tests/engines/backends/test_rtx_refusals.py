"""What a build for TensorRT-RTX refuses: bad graphs, links, plugins and options."""

import onnx
import pytest

from luvc.engines.backends.base import BuildOptions
from luvc.engines.backends.trt.backend import tensorrt_rtx
from luvc.errors import LuvcError

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytest.importorskip("polygraphy", reason="Polygraphy is not installed")
pytestmark = pytest.mark.xdist_group("tensorrt-rtx")  # one process builds the engines


def change_graph(bundle, change, graph="step"):
    """Change a graph file and the size the manifest knows of it."""
    (layout,) = bundle.manifest.layouts
    name = layout.graphs.model_dump()[graph]
    model = onnx.load(bundle.file(name), load_external_data=False)
    change(model)
    bundle.file(name).write_bytes(model.SerializeToString())


def first_weight(model):
    return next(t for t in model.graph.initializer if t.external_data)


def point_outside(model):
    first_weight(model).external_data[0].value = "../../secret.bin"


def point_to_unlisted(model):
    first_weight(model).external_data[0].value = "other.bin"


def unknown_operator(model):
    model.graph.node[0].domain, model.graph.node[0].op_type = "luvc", "Mystery"


def unsupported_operator(model):
    node = next(n for n in model.graph.node if n.op_type == "Cos")
    node.op_type, node.name = "BitShift", "node_shift"


def keep_too_many(model):
    node = next(n for n in model.graph.node if n.op_type == "SpectrumSelect")
    next(a for a in node.attribute if a.name == "keep").i = 10_000


@pytest.mark.parametrize(
    ("graph", "change", "message"),
    [
        ("step", point_outside, "leaves the bundle"),
        ("step", point_to_unlisted, "onnx/other.bin, which the manifest does not list"),
        ("prefill", unknown_operator, "luvc::Mystery, which luvc-export does not write"),
        ("step", unsupported_operator, "does not accept onnx/step.*node_shift"),
        ("prefill", keep_too_many, "keeps 10000 of 30 visual tokens"),
    ],
)
def test_bad_graphs_are_refused_by_node(copy, graph, change, message):
    change_graph(copy, change, graph)
    with pytest.raises(LuvcError, match=message):
        tensorrt_rtx.build(copy, BuildOptions(batch=(1, 1, 2)))


def test_a_damaged_graph_and_no_visual_tokens_are_refused(copy):
    (layout,) = copy.manifest.layouts
    empty = layout.model_copy(update={"visual_tokens": 0})
    bundle = copy.with_manifest(copy.manifest.model_copy(update={"layouts": (empty,)}))
    with pytest.raises(LuvcError, match="V = 0"):
        tensorrt_rtx.build(bundle)
    copy.file(layout.graphs.vision).write_bytes(b"\xff" * 100)
    with pytest.raises(LuvcError, match="not a readable ONNX file"):
        tensorrt_rtx.build(copy)


def test_a_link_out_of_the_bundle_is_refused(copy, tmp_path):
    weights = copy.file("onnx/weights.safetensors")
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LuvcError, match="leaves the bundle"):
        tensorrt_rtx.build(copy)


def test_a_registered_plugin_is_refused_before_the_parser_ends_the_process(copy, monkeypatch):
    class Registry:
        def get_creator(self, name, version, space):
            return object() if (name, version, space) == ("SpectrumSelect", "1", "luvc") else None

    monkeypatch.setattr(trt, "get_plugin_registry", Registry)
    with pytest.raises(LuvcError, match=r"luvc::SpectrumSelect.*ends the process"):
        tensorrt_rtx.build(copy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (BuildOptions(batch=(2, 1, 8)), "batch 2,1,8"),
        (BuildOptions(batch=(0, 1, 8)), "batch 0,1,8"),
        (BuildOptions(memory_gib=0), "memory limit 0 GiB"),
        (BuildOptions(targets=("sm90",)), "target 'sm90' is not one of sm75"),
    ],
)
def test_bad_options(copy, options, message):
    with pytest.raises(LuvcError, match=message):
        tensorrt_rtx.build(copy, options)


def test_float32_is_refused(copy):
    bundle = copy.with_manifest(copy.manifest.model_copy(update={"dtype": "float32"}))
    with pytest.raises(LuvcError, match="export with --dtype fp16"):
        tensorrt_rtx.build(bundle)
