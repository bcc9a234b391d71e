"""Videos of the families whose processor takes them: prompt, pixels, samples, answer are Hugging Face's own.

Its video processors need torchvision, so what they make is written by a process of its own (films.py); ours
do not.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from luvc.engines import VLM
from luvc.engines.bundle.schedule import ENERGY, Prune, Schedule
from luvc.engines.prompt.positions import prompt_positions
from luvc.engines.prompt.videos import sampled
from luvc.errors import LuvcError
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.layouts.planned import image_geometry
from luvc.exporter.vision.families import FAMILIES, adapter_class

from . import films, reference
from .checkpoints import write
from .films import COUNT, TEXT, film
from .gallery import apart, families
from .pruned_by_hand import ByHand
from .reference import FPS
from .with_torchvision import python, torchvision_or_skip

TOKENS = 8
SIZES = {name: family.size for name, family in films.FAMILIES.items()}
FILMED = [apart(name, torchvision=False) for name in SIZES]
ROOM = {"text_capacity": 192}  # SmolVLM's prompt says much about a video


def question(frames: Any, fps: float = FPS) -> list[dict]:
    video = {"type": "video", "video": list(frames), "fps": fps}
    return [{"role": "user", "content": [video, {"type": "text", "text": TEXT}]}]


@pytest.fixture(scope="module")
def wanted(gallery) -> dict[str, Any]:
    """By family, what Hugging Face's processor makes of a short and of a longer video, and its samples."""
    torchvision_or_skip()
    pytest.importorskip("num2words", reason="needs the extra video")
    file = gallery.root / "films.pt"
    with FileLock(gallery.root / "films.lock"):
        if not file.exists():
            for name in SIZES:
                gallery.checkpoint(name)
            done = python(
                "-m", "tests.families.films", str(gallery.root / "checkpoints"), str(file)
            )
            assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(file, weights_only=False)


def in_pytorch(gallery, name: str, **options: Any) -> VLM:
    pytest.importorskip("num2words", reason="needs the extra video")
    usual = ROOM | {"image_sizes": (SIZES[name],), "frames": (COUNT,)}
    return gallery.in_pytorch(name, **usual | options)


def theirs(gallery, name: str, ids: Sequence[int]) -> list[int]:
    """Ids of a prompt of ours, whose image tokens stand for frames in all families."""
    config = gallery.family(name).config
    swap = {config.image_token_id: config.video_token_id} if name in SWAPPED else {}
    return [swap.get(t, t) for t in ids]


SWAPPED = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_onevision")  # have a token of videos
RESIZED = {"smolvlm": 0.03}  # up and down again, by torchvision there and by Pillow here


def pixels_of(given: dict[str, Any]) -> np.ndarray:
    name = "pixel_values_videos" if "pixel_values_videos" in given else "pixel_values"
    return given[name].numpy().ravel()


@pytest.mark.cell("video")
@pytest.mark.parametrize("name", FILMED)
def test_a_video_is_answered_as_by_hugging_face(gallery, wanted, name):
    vlm, given = in_pytorch(gallery, name, ratio=1), wanted[name]["short"]
    frames = film(SIZES[name], COUNT)
    prompt = vlm.processor.prompt(question(frames))
    assert theirs(gallery, name, prompt.input_ids) == given["input_ids"][0].tolist()
    found, atol = vlm.processor.pixels(prompt).ravel(), RESIZED.get(name, 1e-6)
    np.testing.assert_allclose(found, pixels_of(given), atol=atol)
    model, _ = gallery.hugging_face(name)
    given = {k: v for k, v in given.items() if k != "video_metadata"}
    out = model.generate(**given, max_new_tokens=TOKENS, do_sample=False)
    answer = vlm.generate(question(frames), max_new_tokens=TOKENS)
    assert answer.token_ids == out[0, given["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("name", FILMED)
def test_of_a_longer_video_the_same_frames_are_shown_with_the_same_times(gallery, wanted, name):
    film_of, given = films.FAMILIES[name], wanted[name]["long"]
    vlm = in_pytorch(gallery, name, ratio=1, frames=(film_of.count,))
    frames = film(film_of.size, film_of.total)
    prompt = vlm.processor.prompt(question(frames, film_of.fps))
    assert theirs(gallery, name, prompt.input_ids) == given["input_ids"][0].tolist()
    found = vlm.processor.pixels(prompt).ravel()
    np.testing.assert_allclose(found, pixels_of(given), atol=RESIZED.get(name, 1e-6))
    if "second_per_grid_ts" in given:
        assert prompt.seconds == pytest.approx(given["second_per_grid_ts"].tolist())
    compared = 0
    for (total, count, fps), chosen in wanted[name]["taken"].items():
        if len(chosen) == count:  # else by a rate of its own
            compared += 1
            how = vlm.manifest.layouts[0].sampling
            assert sampled(total, count, how, fps) == chosen, (total, count, fps)
    assert compared > 1
    both = [{"type": "image", "image": frames[0]}, *question(frames)[0]["content"]]
    with pytest.raises(LuvcError, match="images and videos cannot share a prompt"):
        vlm.processor.prompt([{"role": "user", "content": both}])
    with pytest.raises(LuvcError, match=r"holds an image, .* videos of \d frames or more"):
        vlm.processor.prompt([{"role": "user", "content": both[:1]}])
    least = film_of.count
    with pytest.raises(LuvcError, match=rf"{least - 1} frames.*{least} frames or more.*--frames"):
        vlm.processor.prompt(question(frames[: least - 1]))


@pytest.mark.cell("video SPU")
@pytest.mark.parametrize("name", FILMED)
def test_a_pruned_video_is_hugging_faces_with_rows_dropped(gallery, wanted, name):
    model, _ = gallery.hugging_face(name)
    V = in_pytorch(gallery, name, ratio=1).manifest.layouts[0].visual_tokens
    keeps = {1: V // 2, 2: V // 5, 3: 0}
    prunes = tuple(Prune(layer=i, keep=k) for i, k in keeps.items())
    schedule = Schedule(language=prunes, score=ENERGY.having(cutoff=0.4))
    vlm, frames = in_pytorch(gallery, name, schedule=schedule), film(SIZES[name], COUNT)
    hand = ByHand(model, wanted[name]["short"], keeps, 0.4)
    logits = hand.logits().numpy()
    prompt = vlm.processor.prompt(question(frames))
    assert theirs(gallery, name, prompt.input_ids) == hand.ids
    _, result, _ = vlm.prefill([prompt])
    for layer, stage in result.stages.items():
        assert stage.kept[0].tolist() == hand.kept[layer]
    limit = (1e-2 if name in RESIZED else 1e-4) * np.abs(logits).max()
    assert np.abs(result.logits[0] - logits).max() <= limit
    answer = vlm.generate(question(frames), max_new_tokens=3)
    assert answer.token_ids == hand.generate(3, list(vlm.sampling.eos_token_id))


def test_every_family_with_videos_is_here():
    assert {name for name in FAMILIES if adapter_class(name).video} == set(SIZES)


def test_each_video_of_a_prompt_has_its_own_pace(gallery):
    vlm = gallery.in_pytorch("qwen2_5_vl", ratio=1, frames=(4,), images=(2,))
    (layout,) = vlm.manifest.layouts
    frames = film(layout.image_size, 4)
    parts = [{"type": "video", "video": list(frames), "fps": fps} for fps in (0.25, 2.0)]
    content = [*parts, {"type": "text", "text": TEXT}]
    prompt = vlm.processor.prompt([{"role": "user", "content": content}])
    assert prompt.seconds == (8.0, 1.0)  # two frames a step
    model, _ = gallery.hugging_face("qwen2_5_vl")
    ids = torch.tensor([prompt.input_ids])
    visual = ids == vlm.manifest.language.image_token_id
    ids[visual] = model.config.video_token_id
    time, rows, columns = layout.visual_grid
    block = model.config.vision_config.spatial_merge_size
    wanted, _ = model.model.get_rope_index(
        ids,
        mm_token_type_ids=2 * visual.int(),
        second_per_grid_ts=torch.tensor(prompt.seconds),
        video_grid_thw=torch.tensor([[time, block * rows, block * columns]] * 2),
    )
    found, _ = prompt_positions(prompt.input_ids, vlm.manifest.language, layout, prompt.seconds)
    np.testing.assert_array_equal(found.T, wanted[:, 0].numpy())


@pytest.mark.parametrize(
    ("name", "frames", "message"),
    [
        (
            "llava",
            4,
            "knows no videos.*--images 4.* internvl, llava_onevision, qwen2_5_vl, qwen2_vl",
        ),
        ("qwen2_vl", 3, "multiple"),
        ("llava_onevision", 1, "2 frames or more"),
    ],
)
def test_videos_that_cannot_be_exported(tmp_path, name, frames, message):
    family = Family.load(str(write(name, tmp_path / name)))
    with pytest.raises(LuvcError, match=message):
        image_geometry(family, None, 1, frames)


# ---- families that know no videos
IMAGES_ONLY = [p for p in families() if p.values[0] not in SIZES]


@pytest.mark.cell("frames as images")
@pytest.mark.parametrize("name", IMAGES_ONLY)
def test_a_video_is_shown_as_images_where_a_family_knows_none(gallery, name):
    vlm = gallery.in_pytorch(name, ratio=1, images=(1, 3))
    one, several = vlm.manifest.layouts
    frames = film(several.image_size, 7)
    shown = [Image.fromarray(frames[i]) for i in (0, 2, 4)]  # the first of each third
    prompt = vlm.processor.prompt(question(frames))
    assert prompt.layout.name == several.name and "shown as 3 images" in "".join(prompt.notes)
    _, proc = gallery.hugging_face(name)
    wanted = reference.inputs(proc, TEXT, shown)
    assert prompt.input_ids == wanted["input_ids"][0].tolist()
    parts = [{"type": "image", "image": image} for image in shown]
    same = vlm.processor.prompt(
        [{"role": "user", "content": [*parts, {"type": "text", "text": TEXT}]}]
    )
    assert same.input_ids == prompt.input_ids
    np.testing.assert_array_equal(vlm.processor.pixels(prompt), vlm.processor.pixels(same))
    for clip, message in (
        (frames[:2], "2 frames, this bundle answers about videos of 3 frames or more.*--images 2"),
        (frames[:1], "1 frame, .*--images 1"),
    ):
        with pytest.raises(LuvcError, match=message):
            vlm.processor.prompt(question(clip))
    with pytest.raises(LuvcError, match=r"7 frames, layout .* about images: name another"):
        vlm.processor.prompt(question(frames), one.name)
    with pytest.raises(LuvcError, match=r"1 image, layout .* holds 3"):
        vlm.processor.prompt(
            [{"role": "user", "content": [parts[0], {"type": "text", "text": TEXT}]}], several.name
        )
