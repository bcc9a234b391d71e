"""TensorRT-RTX builds every graph without a GPU; plans and networks are read, nothing is run."""

import re
from collections import Counter
from pathlib import Path

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
from ...exporter.tensorrt_log import logger
from .conftest import CASES

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
pytest.importorskip("polygraphy", reason="Polygraphy is not installed")
pytestmark = pytest.mark.xdist_group("tensorrt-rtx")  # one process builds the engines
LAYERS, VISION_LAYERS = TINY["layers"], TINY["vision_layers"]
SEVERAL, SINGLE = "_gemm_mha_v2", "_gemv_mha_v1"  # fused attention: several queries, one query


def kernels(bundle, graph) -> Counter:
    """Names of the compiled kernels in the plan of a graph."""
    (engine,) = bundle.manifest.engines
    plan = next(p.file for p in engine.graphs if p.graph == graph)
    found = re.findall(rb"function=\{ name=(\S+)", bundle.file(plan).read_bytes())
    return Counter(name.decode() for name in found)


def layer_types(path) -> Counter:
    """Kinds of layers the parser makes of a graph."""
    log = logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, log).parse_from_file(str(path))
    return Counter(network.get_layer(i).type.name for i in range(network.num_layers))


def test_questions_without_a_picture_have_engines(engines):
    bundle = engines("qwen2-text-fp16", 2.0)
    pictured, text = bundle.manifest.layouts
    (engine,) = bundle.manifest.engines
    assert [f.graph for f in engine.graphs] == [*pictured.graphs.files, *text.graphs.files]
    assert len(text.graphs.files) == 2
    assert kernels(bundle, text.graphs.prefill)


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


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, SystemExit])  # by Ctrl-C, by SIGTERM
def test_an_interrupted_build_changes_nothing(copy, stopped):
    def interrupt(graph, phase, share):
        if "vision" in graph and share > 0.3:
            raise stopped

    with pytest.raises(stopped):
        tensorrt_rtx.build(copy, BuildOptions(batch=(1, 1, 2)), interrupt)
    assert Bundle.load(copy.path, verify=True).manifest == copy.manifest
    assert not list(copy.path.glob(".engines*"))


def test_the_step_is_built_so_that_a_cuda_graph_can_hold_it(engines):
    engines(*CASES[0])
    assert not [text for text in engines.said if "CUDA graph" in text]


def test_flags_reach_the_builder(copy):
    """Float32 stays float32, and a step allocates nothing while it runs."""
    (engine,), (layout,) = copy.manifest.engines, copy.manifest.layouts
    build = trt_build._Build(tensorrt_rtx.library, copy, BuildOptions(), silent)
    found = {}
    for file in engine.graphs:
        log = logger(trt)
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
