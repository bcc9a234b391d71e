"""Every method, exported: its graphs are traced once, equal PyTorch, and are built by TensorRT-RTX."""

import numpy as np
import pytest
import torch

from luvc.exporter.ops.riding import COLUMNS, joined, parted
from luvc.exporter.planning.methods import METHODS, measured_score
from luvc.plugins.scores.base import TOWER

from .method_graphs import (
    GRAPHS,
    ROWS,
    MethodGraphs,
    Result,
    build_with_tensorrt_rtx,
    forward_pass,
)

pytestmark = pytest.mark.xdist_group("methods")  # they share a checkpoint and most of them a tower
TILES = (112, 224)  # two tiles and the thumbnail
GRID = 8  # patches of a tile along an axis
FEWER = {"visiondrop": {"stages": (0.0, 0.5), "keeps": (1.0, 0.5)}}  # a stage takes long to trace
QUICK = ("divprune", "visionzip")  # one that picks greedily, and one of the tower that merges
QUICK_FIRST = [pytest.param(m, marks=[] if m in QUICK else pytest.mark.slow) for m in GRAPHS]


@pytest.fixture(scope="module")
def graphs(workshop, tmp_path_factory) -> MethodGraphs:
    """InternVL before Qwen3, whose queries and keys have norms."""
    checkpoint = workshop.checkpoint(
        layers=4, vision_layers=3, image=112, text="qwen3", head_dim=128, tied=False
    )
    return MethodGraphs(checkpoint, tmp_path_factory.mktemp("methods"), TILES)


def check(graphs: MethodGraphs, method: str, result: Result) -> None:
    """As near as it must be, and of the form that the method has."""
    result.check()
    layout, rides = result.layout, TOWER in METHODS[method].score.reads
    assert layout.schedule.language or layout.schedule.exit
    assert (measured_score(layout.schedule) is not None) == rides
    assert result.embeds.shape[-1] == graphs.family.decoder.hidden + COLUMNS * rides


@pytest.mark.parametrize("method", GRAPHS)
def test_a_methods_graphs_equal_pytorch(graphs, method):
    layout = graphs.layout(method, ratio=1.6, **FEWER.get(method, {}))
    check(graphs, method, graphs.compared(layout))


@pytest.mark.parametrize("method", QUICK_FIRST)
def test_two_images(graphs, method):
    layout = graphs.first_layout(method, images=(2,), scope="tile")
    assert layout.images == 2 and layout.tiles == 3
    check(graphs, method, graphs.compared(layout, seed=1))


@pytest.mark.parametrize("method", QUICK_FIRST)
def test_tensorrt_rtx_builds_it_in_half_precision(graphs, method):
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    layout = graphs.layout(method, ratio=1.6)
    for kind in ("vision", "prefill"):
        build_with_tensorrt_rtx(trt, graphs.traced(kind, layout, "float16"), layout)


@pytest.mark.slow
def test_all_stages_of_visiondrop(graphs):
    layout = graphs.layout("visiondrop", ratio=1.6)
    assert layout.schedule.scored == [0, 1, 2, 3]
    check(graphs, "visiondrop", graphs.compared(layout))


# ---- what scores are given, against Hugging Face's own attention
def test_the_tower_measures_what_hugging_face_attends_to(graphs):
    """CLS to patches in the last layer, mean over heads and over the patches of a visual token."""
    layout = graphs.layout("fastervlm", ratio=1.6)
    pixels = np.random.default_rng(3).normal(size=layout.pixel_shape).astype(np.float32)
    found = graphs.pytorch().vision(layout, pixels)[..., -COLUMNS:].sum(-1)
    model = graphs.hugging_face()
    with torch.no_grad():
        seen = model.model.vision_tower(torch.from_numpy(pixels), output_attentions=True)
        of_cls = seen.attentions[-1].mean(1)[:, 0, 1:].reshape(-1, GRID, GRID, 1)
        cells = model.model.pixel_shuffle(of_cls, 0.5).mean(-1).flatten(1)
    np.testing.assert_allclose(found / cells.shape[1], cells, rtol=1e-4)


def test_fastv_reads_what_hugging_face_attends_to(graphs):
    """Grouped heads, behind their norms and the rotary embedding, in the layer behind the stage."""
    layout = graphs.layout("fastv", ratio=1.6)
    feed, stages, model = forward_pass(graphs, layout)
    attention = model.model.language_model(
        inputs_embeds=feed["embeds"], output_attentions=True
    ).attentions[1]
    for row in range(ROWS):
        wanted = attention[row, :, feed["last"][row]].mean(0)[feed["places"][row]]
        np.testing.assert_allclose(stages[1].energies[row], wanted.detach(), rtol=1e-3, atol=1e-7)


def test_keys_are_those_before_the_rotary_embedding(graphs):
    layout = graphs.layout("k-norm", ratio=1.6)
    feed, stages, model = forward_pass(graphs, layout)
    text = model.model.language_model
    hidden = text(inputs_embeds=feed["embeds"], output_hidden_states=True).hidden_states[1]
    layer = text.layers[1]
    keys = layer.self_attn.k_proj(layer.input_layernorm(hidden)).unflatten(-1, (-1, 128))
    norms = layer.self_attn.k_norm(keys).mean(2).norm(dim=-1).detach()
    for row in range(ROWS):
        wanted = -norms[row][feed["places"][row]]
        np.testing.assert_allclose(stages[1].energies[row], wanted, rtol=1e-4)


# ---- how scores ride
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_two_numbers_rank_what_one_cannot(dtype):
    """Attention to 4,096 tokens that differ by a thousandth of a hundredth."""
    places = torch.randperm(4096, generator=torch.Generator().manual_seed(0)).float()
    scores = (1 + places * 1e-5)[None]
    found = joined(parted(scores, dtype))
    assert (found - scores).abs().max() < 4e-6 if dtype == torch.float16 else 4e-5
    assert len(scores.to(dtype).unique()) < 100 < len(found.unique())
