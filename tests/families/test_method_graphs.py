"""Every method before rotary positions in three axes, behind a tower of windows or of blocks."""

import numpy as np
import pytest
import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_window_index

from luvc.exporter.ops.riding import COLUMNS
from luvc.exporter.planning.methods import METHODS
from luvc.plugins.scores.base import TOWER

from ..exporter.method_graphs import GRAPHS, MethodGraphs
from .gallery import size_of

WINDOWS, BLOCKS = "qwen2_5_vl", "qwen2_vl"
FULL = {2}  # layers of the one that see the whole picture


@pytest.fixture(scope="module")
def graphs(gallery, tmp_path_factory):
    """A function: a family's name -> its graphs."""
    made = {}

    def of(name: str) -> MethodGraphs:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = MethodGraphs(gallery.checkpoint(name), folder, size_of(name))
        return made[name]

    return of


def family_of(method: str) -> str:
    """That with windows, but for what looks into layers that have them."""
    score = METHODS[method].score
    return WINDOWS if TOWER not in score.reads or {*score.layers(4)} <= FULL else BLOCKS


@pytest.mark.slow
@pytest.mark.parametrize("method", GRAPHS)
def test_a_methods_graphs_equal_pytorch(graphs, method):
    made = graphs(family_of(method))
    made.compared(made.first_layout(method)).check()


def test_windows_do_not_shuffle_what_the_tower_measures(graphs):
    """Layer 2 has its tokens window by window: against Hugging Face's own layer and its own way back."""
    made = graphs(WINDOWS)
    layout = made.first_layout("visionzip")
    assert family_of("visionzip") == WINDOWS
    pixels = np.random.default_rng(4).normal(size=layout.pixel_shape).astype(np.float32)
    embeds = made.pytorch().vision(layout, pixels)[0]
    found = embeds[:, -COLUMNS:].sum(-1) / len(embeds)
    shares = found - (found > 0.75)  # above 1 for what stays; half of the best one's at most
    wanted = received(made.hugging_face().model.visual, pixels[0], layout.grid)
    np.testing.assert_allclose(shares, wanted / (2 * wanted.max()), rtol=1e-3, atol=1e-5)


def received(visual, pixels: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Attention received in layer 2 by each block of patches, in raster order, from the layer's inputs."""
    given = {}

    def keep(module, args, inputs):
        given.update(inputs, hidden=args[0] if args else inputs["hidden_states"])

    size = torch.tensor([[1, *grid]])
    with visual.blocks[2].attn.register_forward_pre_hook(keep, with_kwargs=True), torch.no_grad():
        visual(torch.from_numpy(pixels), grid_thw=size)
        heads = visual.blocks[2].attn.qkv(given["hidden"]).unflatten(-1, (3, 2, -1))
        turned = apply_rotary_pos_emb_vision(
            heads[:, 0], heads[:, 1], *given["position_embeddings"]
        )
    query, key = (x.transpose(0, 1) for x in turned)
    weights = (query @ key.transpose(1, 2) * query.shape[-1] ** -0.5).softmax(-1)
    blocks = weights.mean((0, 1)).unflatten(0, (-1, 4)).mean(1)  # patches of a block lie together
    names = ("spatial_merge_size", "window_size", "patch_size")
    order, _ = get_vision_window_index(size, **{name: getattr(visual, name) for name in names})
    return blocks[order.argsort()].numpy()
