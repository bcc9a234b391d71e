"""OIM whose grid is given back, against Hugging Face's own layers merged and restored by hand.

All behind the tower is Hugging Face's own: it gets the grid that it expects.
"""

from contextlib import ExitStack
from functools import cache
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch

from luvc.engines.bundle.joins import compare_joins, join_names
from luvc.engines.bundle.layout import Layout
from luvc.engines.bundle.schedule import Axis, Merge, Schedule
from luvc.engines.tolerance import TOLERANCES
from luvc.exporter import ExportConfig, plan
from luvc.exporter.vision.graph import VisionGraph

from ..exporter.method_graphs import MethodGraphs, build_with_tensorrt_rtx
from . import given_back, reference
from .gallery import QUESTION, apart, families, pictures, question, size_of
from .test_oim import LAYERS, ROTARY

STEPS: tuple[tuple[int, Axis, int], ...] = ((0, "width", 3), (1, "height", 4), (2, "width", 5))
SHALLOW: tuple[tuple[int, Axis, int], ...] = ((0, "width", 3), (1, "height", 4), (1, "width", 5))
# windows of 8 and what is left lose in proportion: (8, 2) of 10 two and none, (8, 4) of 12 two and one
PIXTRAL = {"mistral3": "model.vision_tower", "lighton_ocr": "model.vision_encoder"}
WINDOWED: dict[str, tuple[tuple[int, Axis, int], ...]] = {
    "qwen2_5_vl": ((0, "width", 5), (1, "height", 4), (2, "width", 8))
}


def merges_of(family):
    """Steps that suit the tower's depth and windows."""
    kind, deep = family.config.model_type, family.encoder.layers > 2
    steps = WINDOWED.get(kind, STEPS if deep else SHALLOW)
    return tuple(Merge(layer=i, axis=a, group=g) for i, a, g in steps)


@pytest.mark.parametrize("match", [False, True], ids=["fixed", "matched"])
@pytest.mark.parametrize("name", families())
def test_the_full_grid_is_hugging_face_restored_by_hand(gallery, name, match):
    merges = merges_of(gallery.family(name))
    schedule = Schedule(vision=merges, match=match, restore=True)
    vlm = gallery.in_pytorch(name, schedule=schedule)
    (layout,) = vlm.manifest.layouts
    shown = pictures(layout.image_size, 1)
    pixels = torch.from_numpy(vlm.processor.pixels(vlm.processor.prompt(question(shown))))
    tower = VisionGraph(vlm.runner.model, gallery.family(name).adapter, layout)
    model, proc = gallery.hugging_face(name)
    given = reference.inputs(proc, QUESTION, shown)
    with torch.no_grad(), ExitStack() as stack:
        features = tower(pixels).flatten(0, -2)
        steps = [(m.layer, m.axis, m.group) for m in merges]
        wanted = by_hand(stack, name, model, given, layout, steps, match)
    assert features.shape == wanted.shape
    assert len(features) == layout.visual_tokens == layout.baseline_visual_tokens
    assert (features - wanted).abs().max() <= 2e-5 * wanted.abs().max()


def by_hand(stack, name, model, given, layout, steps, match):
    """Visual tokens, and DeepStack's beside them."""
    if name in ROTARY:
        return rotary(stack, model, given, layout, steps, match)
    if name == "paddleocr_vl":
        tower = model.model.visual.vision_model.encoder
        in_raster = {"blocks": tower.layers, "spatial_merge_size": 1}
        parts = SimpleNamespace(rotary_pos_emb=tower.rotary_pos_emb, **in_raster)
        given_back.RotaryTower(parts, steps, match, layout.grid, None).hook(stack)
        return reference.features(model, given).tokens
    if name in ("mistral3", "lighton_ocr"):
        tower = model.get_submodule(PIXTRAL[name])
        layers, turn = tower.transformer.layers, tower.patch_positional_embedding
        last = len(layers) - 1
        given_back.AbsoluteTower(layers, steps, match, layout.grid, 0, last, turn).hook(stack)
        return reference.features(model, given).tokens
    if name == "gemma4":
        tower, count = model.model.vision_tower, layout.grid[0] * layout.grid[1]
        turn = lambda x, found: tower.encoder.rotary_emb(x, found.flip(-1)[None])  # noqa: E731
        last = len(tower.encoder.layers) - 1
        layers = tower.encoder.layers
        given_back.AbsoluteTower(layers, steps, match, layout.grid, 0, last, turn).hook(stack)
        cut = {k: given[k][:, :count] for k in ("pixel_values", "image_position_ids")}
        return reference.features(model, cut).tokens
    path, prefix, _ = LAYERS[model.config.model_type]
    layers = model.model.get_submodule(path)
    last = range(len(layers))[getattr(model.config, "vision_feature_layer", -1)]
    given_back.AbsoluteTower(layers, steps, match, layout.grid, prefix, last).hook(stack)
    return reference.features(model, given).tokens


def rotary(stack, model, given, layout, steps, match):
    visual = model.model.visual
    window = visual.window_size // visual.patch_size if hasattr(visual, "window_size") else None
    given_back.RotaryTower(visual, steps, match, layout.grid, window).hook(stack)
    if window is None:
        found = reference.features(model, given)
        return torch.cat([found.tokens, *found.taps], -1)
    # tokens come block by block; the hooks bring them into windows
    count = layout.grid[0] * layout.grid[1] // visual.spatial_merge_size**2
    order = {"window_index": torch.arange(count), "cu_window_seqlens": torch.tensor([0, count])}
    return visual(given["pixel_values"], given["image_grid_thw"], **order).pooler_output


GRAPHS = ("internvl", "smolvlm", "qwen2_5_vl", "qwen3_vl", "llava_next")
"""Tiles behind a CLS token, SigLIP, windows, DeepStack, packed tiles."""


class VisionGraphs(MethodGraphs):
    """Vision graphs alone."""

    def restored(self, name: str, match: bool) -> Layout:
        sizes = () if size_of(name) is None else (size_of(name),)
        schedule = Schedule(vision=merges_of(self.family), match=match, restore=True)
        options = {"image_sizes": sizes, "schedule": schedule, "text_capacity": 96}
        return plan(ExportConfig.make(model=str(self.model), reference_text=8, **options))[0]


@pytest.fixture(scope="module")
def graphs(gallery, tmp_path_factory):
    """A function: a family's name -> its graphs."""
    return cache(lambda name: VisionGraphs(gallery.checkpoint(name), tmp_path_factory.mktemp(name)))


@pytest.mark.parametrize("name", [apart(n, torchvision=False) for n in GRAPHS])
def test_onnx_runtime_matches_and_restores_as_pytorch(graphs, name):
    made = graphs(name)
    layout = made.restored(name, match=True)
    shape = 2 * layout.pixel_shape[0], *layout.pixel_shape[1:]
    pixels = np.random.default_rng(7).normal(size=shape).astype(np.float32)
    wanted = made.pytorch().vision(layout, pixels)
    session = onnxruntime.InferenceSession(made.traced("vision", layout))
    found = np.asarray(session.run(None, {"pixel_values": pixels})[0])
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("name", [apart("internvl", False, slow=True), apart("qwen2_5_vl", False)])
def test_half_precision_joins_what_is_nearly_as_near(graphs, name):
    """Of 24 pictures some have near ties: PyTorch goes on with the engine's choice."""
    made, tolerance = graphs(name), TOLERANCES["float16"]
    layout = made.restored(name, match=True)
    shape = 24 * layout.pixel_shape[0], *layout.pixel_shape[1:]
    pixels = np.random.default_rng(7).normal(size=shape).astype(np.float32)
    session = onnxruntime.InferenceSession(made.traced("vision", layout, "float16"))
    names = [output.name for output in session.get_outputs()]
    assert names == ["visual_embeds", *join_names(layout.schedule)] and len(names) == 4
    found, *joins = map(np.asarray, session.run(None, {"pixel_values": pixels}))
    free, wanted = (made.pytorch().vision_result(layout, pixels, given) for given in ((), joins))
    assert any((a != b).any() for a, b in zip(free.joins, joins, strict=True)), (
        "or nothing ties here"
    )
    for merge, *step in zip(
        layout.schedule.vision, joins, wanted.own, wanted.likeness, strict=True
    ):
        lines = (x.reshape(-1, x.shape[-1]) for x in step)
        report = compare_joins(merge, *lines, tie=tolerance.tie, overlap=tolerance.overlap)
        assert report.passed and report.joins == step[0].sum(), report
    errors = [np.abs(found - x.embeds).max() / np.abs(x.embeds).max() for x in (wanted, free)]
    assert errors[0] <= tolerance.error
    assert all((a == b).all() for a, b in zip(wanted.joins, joins, strict=True))


@pytest.mark.parametrize("name", [apart("internvl", False, slow=True), apart("qwen2_5_vl", False)])
def test_tensorrt_rtx_builds_a_tower_that_matches_and_restores(graphs, name):
    rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    made = graphs(name)
    layout = made.restored(name, match=True)
    build_with_tensorrt_rtx(rtx, made.traced("vision", layout, "float16"), layout)
