"""TensorRT-RTX builds every graph without a GPU; plans and networks are read, nothing is run."""

import re
import shutil
import warnings
from collections import Counter
from pathlib import Path

import onnx
import pytest

from luvc.engines import Bundle
from luvc.engines.backends.base import BuildOptions, silent
from luvc.engines.backends.trt import build as trt_build
from luvc.engines.backends.trt import graph as trt_graph
from luvc.engines.backends.trt.backend import tensorrt_rtx
from luvc.engines.backends.trt.progress import make_monitor
from luvc.engines.bundle.graph_file import read_graph
from luvc.errors import LuvcError

from ...conftest import TINY

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytest.importorskip("polygraphy", reason="Polygraphy is not installed")

pytestmark = pytest.mark.xdist_group("tensorrt-rtx")  # one process builds the engines
LAYERS, VISION_LAYERS = TINY["layers"], TINY["vision_layers"]
SEVERAL, SINGLE = "_gemm_mha_v2", "_gemv_mha_v1"  # fused attention: several queries, one query
# Every pair of ratio, dtype and head size; the others differ from these in no operator.
CASES = [
    ("qwen2-fp16", 2.0),
    ("qwen2-defaults-fp16", 2.0),
    ("qwen2-bf16", 1.0),
    ("qwen3-128-fp16", 1.0),
    ("qwen3-128-bf16", 2.0),
]


@pytest.fixture(scope="module")
def engines(workshop, tmp_path_factory):
    """A function: (case, ratio) -> a bundle with engines."""
    made = {}

    def make(case, ratio) -> Bundle:
        if (case, ratio) not in made:
            target = tmp_path_factory.mktemp("engines") / "bundle"
            shutil.copytree(workshop.bundle(case, ratio).path, target)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                made[case, ratio] = tensorrt_rtx.build(Bundle.load(target))[0]
            make.said += [str(w.message) for w in caught]
        return made[case, ratio]

    make.said = []
    return make


def test_questions_without_a_picture_have_engines(engines):
    bundle = engines("qwen2-text-fp16", 2.0)
    pictured, text = bundle.manifest.layouts
    (engine,) = bundle.manifest.engines
    assert [f.graph for f in engine.graphs] == [*pictured.graphs.files, *text.graphs.files]
    assert len(text.graphs.files) == 2
    assert kernels(bundle, text.graphs.prefill)


@pytest.fixture
def copy(engines, tmp_path):
    """A bundle with engines that a test may change."""
    return Bundle.load(shutil.copytree(engines(*CASES[0]).path, tmp_path / "bundle"))


def kernels(bundle, graph) -> Counter:
    """Names of the compiled kernels in the plan of a graph."""
    (engine,) = bundle.manifest.engines
    plan = next(p.file for p in engine.graphs if p.graph == graph)
    found = re.findall(rb"function=\{ name=(\S+)", bundle.file(plan).read_bytes())
    return Counter(name.decode() for name in found)


def layer_types(path) -> Counter:
    """Kinds of layers the parser makes of a graph."""
    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, log).parse_from_file(str(path))
    return Counter(network.get_layer(i).type.name for i in range(network.num_layers))


@pytest.mark.parametrize(("case", "ratio"), CASES)
def test_attention_is_fused_and_caches_are_updated_in_place(engines, case, ratio):
    bundle = engines(case, ratio)
    (layout,) = bundle.manifest.layouts
    assert bool(layout.schedule.language) == (ratio > 1)
    attention = {
        g: {k: n for k, n in kernels(bundle, g).items() if "mha" in k} for g in layout.graphs.files
    }
    assert attention[layout.graphs.vision] == {SEVERAL: VISION_LAYERS}
    assert attention[layout.graphs.prefill] == {SEVERAL: LAYERS}
    assert attention[layout.graphs.step] == {SINGLE: LAYERS, SEVERAL: LAYERS}
    for graph in (layout.graphs.prefill, layout.graphs.step):
        types = layer_types(bundle.file(graph))
        assert types["ATTENTION_INPUT"] == LAYERS and types["KV_CACHE_UPDATE"] == 2 * LAYERS
        host_side = {
            "LOOP_OUTPUT",
            "RECURRENCE",
            "TRIP_LIMIT",
            "ITERATOR",
            "CONDITION",
            "PLUGIN_V3",
        }
        assert not host_side & set(types)
        assert "TOPK" not in types  # it would end at 3840 tokens


def test_the_manifest_lists_the_engines(engines):
    bundle = engines(*CASES[0])
    loaded = Bundle.load(bundle.path, verify=True)
    (engine,) = loaded.manifest.engines
    assert (engine.backend, engine.arch, engine.plugins) == ("tensorrt-rtx", "portable", "body")
    assert engine.version == trt.__version__
    assert engine.folder == f"engines/tensorrt-rtx-portable-{trt.__version__}"
    on_disk = {p.relative_to(loaded.path).as_posix() for p in loaded.path.rglob("*") if p.is_file()}
    assert on_disk == {*loaded.manifest.files, "manifest.json"}
    (layout,) = loaded.manifest.layouts
    V, capacity = layout.visual_tokens, loaded.manifest.text_capacity
    profiles = {p.graph: p.profiles for p in engine.graphs}
    assert profiles == {
        layout.graphs.vision: ({"N": (1, 1, 8)},),
        layout.graphs.prefill: ({"B": (1, 1, 8), "S": (V + 2, V + 8, V + capacity)},),
        layout.graphs.step: (
            {"B": (1, 1, 8), "T": (1, 1, 1)},
            {"B": (1, 1, 8), "T": (2, 8, capacity)},
        ),
    }


def test_a_second_build_does_nothing(copy):
    (engine,) = copy.manifest.engines
    before = {p.file: copy.file(p.file).stat().st_mtime_ns for p in engine.graphs}
    again, built = tensorrt_rtx.build(copy)
    assert again.manifest == copy.manifest and [b.seconds for b in built] == [None] * 3
    assert {p: copy.file(p).stat().st_mtime_ns for p in before} == before


def test_other_settings_build_again_and_other_gpus_beside(copy):
    shares = []
    changed, built = tensorrt_rtx.build(
        copy, BuildOptions(batch=(1, 2, 4), memory_gib=1), lambda graph, phase, s: shares.append(s)
    )
    assert all(b.seconds for b in built) and len(changed.manifest.engines) == 1
    assert min(shares) >= 0 and max(shares) == 1 and len(set(shares)) > 20
    both, _ = tensorrt_rtx.build(changed, BuildOptions(targets=("sm89",)))
    assert [e.arch for e in both.manifest.engines] == ["portable", "sm89"]
    assert Bundle.load(copy.path, verify=True).manifest == both.manifest


def test_lost_and_damaged_plans_are_named_and_built_again(copy):
    (engine,) = copy.manifest.engines
    lost, damaged, _ = (copy.file(p.file) for p in engine.graphs)
    lost.unlink()
    damaged.write_bytes(b"short")
    with pytest.raises(LuvcError, match=r"vision.*plan is missing; run luvc-build again"):
        Bundle.load(copy.path)
    _, built = tensorrt_rtx.build(Bundle.load(copy.path, engines=False))
    assert [b.seconds is None for b in built] == [False, False, True]
    Bundle.load(copy.path, verify=True)


def test_an_interrupted_build_changes_nothing(copy):
    def interrupt(graph, phase, share):
        if "step" in graph and share > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tensorrt_rtx.build(copy, BuildOptions(batch=(1, 1, 2)), interrupt)
    assert Bundle.load(copy.path, verify=True).manifest == copy.manifest
    assert not list(copy.path.glob(".engines*"))


# ---- flags


def test_the_step_is_built_so_that_a_cuda_graph_can_hold_it(engines):
    engines(*CASES[0])
    assert not [text for text in engines.said if "CUDA graph" in text]


def test_flags_reach_the_builder(copy):
    """Float32 stays float32, and a step allocates nothing while it runs."""
    (engine,), (layout,) = copy.manifest.engines, copy.manifest.layouts
    build = trt_build._Build(tensorrt_rtx.library, copy, BuildOptions(), silent)
    found = {}
    for file in engine.graphs:
        log = trt.Logger(trt.Logger.ERROR)
        builder = trt.Builder(log)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)
        assert parser.parse_from_file(str(copy.file(file.graph)))
        monitor = make_monitor(trt, file.graph, silent)
        config = build._config(file, monitor, build._flags(file.graph), None)(builder, network)
        flags = trt.BuilderFlag.TF32, trt.BuilderFlag.REQUIRE_USER_ALLOCATION
        found[file.graph] = [config.get_flag(flag) for flag in flags]
    assert found == {g: [False, g == layout.graphs.step] for g in layout.graphs.files}


def test_a_step_that_must_allocate_is_built_all_the_same(copy, monkeypatch):
    tried = []

    def plan(self, file, parsed, flags, log, timing):
        tried.append((file.graph, dict(flags)))
        if trt_build.RECORDABLE in flags:
            raise LuvcError("it must allocate")
        return b"plan"

    monkeypatch.setattr(trt_build._Build, "_plan", plan)
    with pytest.warns(UserWarning, match="may run without a CUDA graph: it must allocate"):
        tensorrt_rtx.build(copy, BuildOptions(batch=(1, 1, 2)))
    (layout,) = copy.manifest.layouts
    steps = [flags for graph, flags in tried if graph == layout.graphs.step]
    assert steps == [{"TF32": False, trt_build.RECORDABLE: True}, {"TF32": False}]
    assert len(tried) == 4


# ---- what is refused


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
    node.op_type, node.name = "Det", "node_det"


def keep_too_many(model):
    node = next(n for n in model.graph.node if n.op_type == "SpectrumSelect")
    next(a for a in node.attribute if a.name == "keep").i = 10_000


@pytest.mark.parametrize(
    ("graph", "change", "message"),
    [
        ("step", point_outside, "leaves the bundle"),
        ("step", point_to_unlisted, "onnx/other.bin, which the manifest does not list"),
        ("prefill", unknown_operator, "luvc::Mystery, which luvc-export does not write"),
        ("step", unsupported_operator, "does not accept onnx/step.*node_det"),
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


def test_the_documented_trtexec_commands(copy, monkeypatch, capsys):
    text = Path(__file__).parents[3].joinpath("docs/tensorrt.md").read_text()
    (code,) = [b for b in re.findall(r"```python\n(.*?)```", text, re.S) if "trtexec" in b]
    monkeypatch.chdir(copy.path.parent)
    exec(compile(code, "docs/tensorrt.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all("--loadEngine=bundle/engines/tensorrt-rtx-" in x for x in lines)
    assert "--useProfile=0 --shapes=pixel_values:1x3x168x168" in lines[0]
    assert "input_ids:1x1," in lines[2] and "input_ids:1x8," in lines[3]


def test_few_heads_get_a_profile_of_two_tokens(copy):
    """There is no kernel for one query of fewer than 4 heads."""
    (layout,) = copy.manifest.layouts
    step = layout.graphs.step
    for heads, last in ((3, 2), (4, 1)):
        profiles = trt_graph.profiles(copy.manifest, layout, step, (1, 1, 8), heads)
        assert profiles[0]["T"] == (1, 1, last)
    model = read_graph(copy, step)
    assert trt_graph.query_heads(model) == 4
