"""Fewer visual tokens by a smaller grid or picture, against numpy and Hugging Face's own model."""

import math
from functools import wraps

import numpy as np
import pytest
import torch
from PIL import Image

from luvc.engines import VLM
from luvc.engines.bundle.schedule import Reduction, Schedule
from luvc.engines.prompt.positions import prompt_positions
from luvc.errors import LuvcError
from luvc.exporter import export, plan
from luvc.exporter.check.parity import reports
from luvc.exporter.vision.graph import VisionGraph
from luvc.tools.hugging_face import unmerged
from luvc.tools.report import facts
from luvc.tools.report.facts import export_command

from . import reference
from .gallery import QUESTION, apart, pictures, question

# Visual tokens of a tile, and the rows and columns to leave; divided evenly in no family.
SIDES = {
    "internvl": ((6, 6), (4, 5)),
    "llava": ((8, 8), (5, 6)),
    "smolvlm": ((6, 6), (5, 4)),
    "gemma3": ((4, 4), (3, 3)),
    "qwen2_5_vl": ((6, 5), (4, 3)),
    "qwen3_vl": ((4, 5), (3, 5)),
}
PACKED = {"llava_next": (224, 112), "llava_onevision": (98, 196)}
GENERATED = ("internvl", "gemma3", "qwen2_5_vl", "qwen3_vl")


def pooled(tile, rows, columns):
    """Adaptive average pooling, token by token: [h, w, D] -> [rows, columns, D]."""
    h, w, _ = tile.shape
    out = np.empty((rows, columns, tile.shape[2]))
    for y in range(rows):
        for x in range(columns):
            top, bottom = math.floor(y * h / rows), math.ceil((y + 1) * h / rows)
            left, right = math.floor(x * w / columns), math.ceil((x + 1) * w / columns)
            out[y, x] = tile[top:bottom, left:right].mean((0, 1))
    return out


def waves(n):
    """Orthonormal DCT-II: [frequency, place]."""
    k, place = np.mgrid[:n, :n]
    return np.cos(np.pi * k * (2 * place + 1) / (2 * n)) * np.where(
        k, np.sqrt(2 / n), np.sqrt(1 / n)
    )


def cropped(tile, rows, columns):
    """Coefficients of both axes, the low ones kept, the inverse of the smaller size."""
    h, w, _ = tile.shape
    spectrum = np.einsum("uy,vx,yxd->uvd", waves(h), waves(w), tile)[:rows, :columns]
    small = np.einsum("uy,vx,uvd->yxd", waves(rows), waves(columns), spectrum)
    return small * math.sqrt(rows * columns / (h * w))


HOW = {"pool": pooled, "dct": cropped}


def by_hand(how, features, name):
    """Hugging Face's visual tokens of whole tiles [tiles * h * w, D], each tile made smaller."""
    side, left = SIDES[name]
    tiles = features.double().numpy().reshape(-1, *side, features.shape[-1])
    small = np.stack([HOW[how](tile, *left) for tile in tiles])
    return torch.from_numpy(small.reshape(-1, features.shape[-1])).float()


def vlm_of(gallery, how, name, left, **options):
    schedule = Schedule(exit=Reduction(how=how, rows=left[0], columns=left[1]))
    return gallery.in_pytorch(name, schedule=schedule, **options)


def test_a_constant_keeps_its_value():
    tile = np.full((6, 5, 2), 3.0)
    for make in HOW.values():
        np.testing.assert_allclose(make(tile, 4, 2), 3.0)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", [apart(n, torchvision=False) for n in SIDES])
def test_the_grid_is_that_of_numpy(gallery, name, how):
    side, left = SIDES[name]
    vlm = vlm_of(gallery, how, name, left)
    (layout,) = vlm.manifest.layouts
    assert layout.baseline_visual_tokens == layout.tiles * math.prod(side)
    assert layout.visual_tokens == layout.tiles * math.prod(left)
    assert not layout.schedule.language and len(layout.stages) == 1
    model, proc = gallery.hugging_face(name)
    shown = pictures(layout.image_size, 1)
    found = reference.features(model, reference.inputs(proc, QUESTION, shown))
    wanted = torch.cat([by_hand(how, x, name) for x in (found.tokens, *found.taps)], -1)
    tower = VisionGraph(vlm.runner.model, gallery.family(name).adapter, layout)
    pixels = vlm.processor.pixels(vlm.processor.prompt(question(shown)))
    with torch.no_grad():
        features = tower(torch.from_numpy(pixels)).flatten(0, -2)
    assert features.shape == wanted.shape
    assert (features - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("name", [apart(n, torchvision=False) for n in GENERATED])
def test_answers_are_hugging_faces_on_the_smaller_grid(gallery, monkeypatch, name):
    """Hugging Face's `generate` with the smaller grid in place of the tower's: positions, masks and all."""
    left = SIDES[name][1]
    vlm = vlm_of(gallery, "dct", name, left)
    (layout,) = vlm.manifest.layouts
    model, proc = gallery.hugging_face(name)
    shown = pictures(layout.image_size, 1)
    given = reference.inputs(proc, QUESTION, shown)
    features = reference.features(model, given)
    tokens, *taps = (by_hand("dct", x, name) for x in (features.tokens, *features.taps))
    prompt = vlm.processor.prompt(question(shown))
    ids = torch.tensor([prompt.input_ids])
    visual = (ids == vlm.manifest.language.image_token_id).long()
    whole = model.model.get_image_features(
        **{k: given[k] for k in ("pixel_values", "image_grid_thw") if k in given}
    )
    whole.pooler_output = [tokens] if isinstance(whole.pooler_output, (list, tuple)) else tokens
    if taps:
        whole.deepstack_features = [[t] for t in taps]

    @wraps(model.model.get_image_features)  # generate() reads its signature
    def features_of(*args, **options):
        return whole

    monkeypatch.setattr(model.model, "get_image_features", features_of)
    asked = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    asked |= {"pixel_values": given["pixel_values"]}
    if "image_grid_thw" in given:  # what the smaller grid would have been made of
        asked |= {"image_grid_thw": torch.tensor([[1, 2 * left[0], 2 * left[1]]])}
        asked |= {"mm_token_type_ids": visual}
        wanted, _ = model.model.get_rope_index(ids, visual, asked["image_grid_thw"])
        ours, _ = prompt_positions(prompt.input_ids, vlm.manifest.language, layout)
        assert ours.T.tolist() == wanted[:, 0].tolist()
    if name == "gemma3":
        asked |= {"token_type_ids": visual}
    out = model.generate(**asked, max_new_tokens=12, do_sample=False)
    assert (
        vlm.generate(question(shown), max_new_tokens=12).token_ids
        == out[0, ids.shape[1] :].tolist()
    )


@pytest.mark.parametrize("name", [apart(n, torchvision=False) for n in PACKED])
def test_whole_tiles_are_packed_as_their_own_size_would_be(gallery, name):
    """Hugging Face's packing takes square grids, as if the tower had made them."""
    vlm = vlm_of(gallery, "pool", name, (4, 4), image_sizes=(PACKED[name],))
    (layout,) = vlm.manifest.layouts
    model, proc = gallery.hugging_face(name)
    shown = pictures(PACKED[name], 1)
    given = reference.inputs(proc, QUESTION, shown)
    seen = []
    pack, config = model.model.pack_image_features, model.config.vision_config
    grid = config.image_size // config.patch_size

    def smaller(features, sizes, *rest, **options):
        for tiles in features:
            grids = tiles.double().numpy().reshape(len(tiles), grid, grid, -1)
            small = np.stack([pooled(tile, 4, 4) for tile in grids])
            seen.append(torch.from_numpy(small).float().flatten(1, 2))
        patch, config.patch_size = config.patch_size, config.image_size // 4
        try:
            return pack(seen, sizes, *rest, **options)
        finally:
            config.patch_size = patch

    model.model.pack_image_features = smaller
    try:
        wanted = reference.features(model, given).tokens
    finally:
        del model.model.pack_image_features
    tower = VisionGraph(vlm.runner.model, gallery.family(name).adapter, layout)
    pixels = vlm.processor.pixels(vlm.processor.prompt(question(shown)))
    with torch.no_grad():
        features = tower(torch.from_numpy(pixels)).flatten(0, -2)
    assert len(features) == layout.visual_tokens and features.shape == wanted.shape
    assert (features - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("name", PACKED)
def test_padded_tiles_are_refused(gallery, name):
    for method in ("pool", "dct"):
        with pytest.raises(
            LuvcError, match=r"cuts padding off the tiles .*--image-size that fills"
        ):
            plan(gallery.config(name, method=method, ratio=1.5), gallery.family(name))


def test_a_bundle_of_a_smaller_grid_runs(gallery, tmp_path):
    """ONNX Runtime against PyTorch, with DeepStack; the same layout under the schedule alone."""
    options = {"method": "dct", "ratio": 1.5, "output": tmp_path / "bundle"}
    config = gallery.config("qwen3_vl", **options)
    bundle = export(config, family=gallery.family("qwen3_vl"))
    (layout,) = bundle.manifest.layouts
    assert bundle.manifest.validated and reports(bundle)[0].passed
    assert layout.schedule.exit and layout.ratios.prefill >= 1.5
    line = export_command(bundle.manifest, "b")
    assert "--ratio 1.5x --method dct --image-size 128x160" in line and "--stages" not in line
    told = facts.layout_facts(bundle, gallery.family("qwen3_vl"), layout)
    assert any("keeps the low frequencies of each tile's 4x5" in note for note in told["notes"])
    again = gallery.config("qwen3_vl", schedule=layout.schedule)
    (own,) = plan(again, gallery.family("qwen3_vl"))
    assert own.model_copy(update={"schedule": layout.schedule}) == layout


# ---- the picture made smaller
def test_a_smaller_picture_is_the_unmodified_model_on_it(gallery, tmp_path):
    name, full = "qwen2_5_vl", (168, 168)
    options = {"method": "downsample", "ratio": 1.6, "image_sizes": (full,)}
    config = gallery.config(name, output=tmp_path / "bundle", **options)
    bundle = export(config, family=gallery.family(name))
    (layout,) = bundle.manifest.layouts
    assert layout.baseline_size == full and layout.image_size == (112, 112)
    assert (layout.baseline_visual_tokens, layout.visual_tokens) == (36, 16)
    plain, small = (
        plan(gallery.config(name, ratio=1, image_sizes=(size,)), gallery.family(name))[0]
        for size in (full, layout.image_size)
    )
    assert (plain.visual_tokens, small.visual_tokens) == (36, 16)
    assert layout.pixel_shape == small.pixel_shape and layout.ratios.vision > 2
    model, proc = gallery.hugging_face(name)
    (shown,) = pictures(full, 1)
    resized = shown.resize(
        (112, 112), Image.Resampling(gallery.family(name).image_processor.resample)
    )
    wanted = reference.generate(model, proc, resized, QUESTION, 12)
    line = export_command(bundle.manifest, "b")
    assert "--ratio 1.6x --method downsample --image-size 168x168" in line
    told = facts.layout_facts(bundle, gallery.family(name), layout)
    assert any("112x112 instead of 168x168" in note for note in told["notes"])
    (compared,) = unmerged(bundle, gallery.family(name)).manifest.layouts
    assert (compared.name, compared.image_size) == (layout.name, full), "Hugging Face sees it whole"
    vlm = VLM.load(bundle.path, threads=1)
    assert vlm.generate(question([shown]), max_new_tokens=12).token_ids == wanted


def test_the_next_size_would_not_make_the_ratio(gallery):
    family = gallery.family("qwen2_vl")

    def planned(ratio, size=(168, 168), method="downsample"):
        config = gallery.config("qwen2_vl", method=method, ratio=ratio, image_sizes=(size,))
        return plan(config, family)[0]

    (larger, smaller) = planned(1.01), planned(1.6)
    assert larger.image_size == (140, 140) and smaller.image_size == (112, 112)
    assert larger.ratios.prefill < 1.6 <= smaller.ratios.prefill
    same = planned(1)
    assert same.image_size == (168, 168) and same.baseline_size is None
    with pytest.raises(LuvcError, match=r"the smallest size below 168x168, .* gives 3\.\d+x"):
        planned(90)


def test_families_of_one_size_refuse_smaller_pictures(gallery):
    for name in ("llava", "gemma3"):
        with pytest.raises(LuvcError, match=r"brings every picture to .*--method pool or dct"):
            plan(gallery.config(name, method="downsample", ratio=1.5), gallery.family(name))
    with pytest.raises(LuvcError, match="no size below 168x168"):  # one tile of tiles
        config = gallery.config(
            "internvl", method="downsample", ratio=1.5, image_sizes=((168, 168),)
        )
        plan(config, gallery.family("internvl"))


def test_fewer_tiles_are_a_smaller_picture(gallery):
    config = gallery.config("internvl", method="downsample", ratio=2, image_sizes=((336, 336),))
    (layout,) = plan(config, gallery.family("internvl"))
    assert (layout.image_size, layout.tiles, layout.baseline_size) == ((168, 168), 1, (336, 336))
    assert layout.baseline_visual_tokens == 5 * 36  # four tiles and the thumbnail
