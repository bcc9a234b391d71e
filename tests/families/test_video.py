"""Videos of the Qwen-VL families: the same prompt, pixels and answer as Hugging Face's own processor.

Hugging Face's video processors need torchvision, so they run in a process of their own; ours do not.
"""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from luvc.engines import VLM
from luvc.engines.prompt.positions import prompt_positions
from luvc.errors import LuvcError
from luvc.exporter import ExportConfig, export
from luvc.exporter.check.parity import reports
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.layouts.planned import image_geometry
from luvc.exporter.timing.prompt import TimedPrompt
from luvc.tools import run as run_tool
from luvc.tools.bench import cli as bench

from .checkpoints import write
from .gallery import apart
from .reference import FPS
from .with_torchvision import python, torchvision_or_skip

SIZES = {"qwen2_vl": (112, 168), "qwen2_5_vl": (112, 168), "qwen3_vl": (128, 192)}
TEXT, TOKENS = "What happens?", 8


def film(size, count, seed=0):
    """Frames [count, height, width, 3] of a bright square on its way over noise."""
    random = np.random.default_rng(seed)
    frames = random.integers(0, 120, (count, *size, 3), dtype=np.uint8)
    for n in range(count):
        frames[n, 20:60, 10 + 20 * n : 50 + 20 * n] = random.integers(120, 255, 3)
    return frames


def question(frames, fps=FPS):
    video = {"type": "video", "video": list(frames), "fps": fps}
    return [{"role": "user", "content": [video, {"type": "text", "text": TEXT}]}]


# one process for a family's tests: each would export it again
NAMES = [apart(name, torchvision=False, slow=name != "qwen3_vl") for name in SIZES]


@pytest.fixture(scope="module", params=NAMES)
def exported(request, tmp_path_factory):
    """A checkpoint and its bundle at ratio 1 for four frames."""
    folder = tmp_path_factory.mktemp("video")
    checkpoint = write(request.param, folder / request.param)
    bundle = export(
        ExportConfig.make(
            model=str(checkpoint),
            output=folder / "bundle",
            ratio=1.0,
            frames=(4,),
            image_sizes=(SIZES[request.param],),
            text_capacity=96,
        )
    )
    return request.param, checkpoint, bundle


def test_a_prompt_about_a_video_is_timed(exported):
    _, _, bundle = exported
    prompt = TimedPrompt.of(bundle, text=60)
    assert prompt.text >= 60 and prompt.run() > 0


def test_videos_are_measured(exported, command, tmp_path):
    _, _, bundle = exported
    line = (bundle.path, "--batch", 2, "--rounds", 1, "--warmup", 0, "--new-tokens", 2)
    result = command(bench, *line, "--threads", 1, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["cases"][0]["batch"] == 2
    result = command(bench, *line, "--compare", "hf")
    assert result.code == 2 and "is of videos" in result.err


@pytest.mark.cell("video")
@pytest.mark.parametrize("exported", NAMES, indirect=True)
def test_a_video_is_answered_as_by_hugging_face(exported, tmp_path):
    torchvision_or_skip()
    name, checkpoint, bundle = exported
    frames, vlm = film(SIZES[name], 4), VLM.load(bundle.path, threads=1)
    np.save(tmp_path / "frames.npy", frames)
    done = python(
        "-m",
        "tests.families.reference",
        str(checkpoint),
        "--text",
        TEXT,
        "--video",
        str(tmp_path / "frames.npy"),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    wanted = json.loads(done.stdout.splitlines()[-1])
    config = json.loads((checkpoint / "config.json").read_text())
    prompt = vlm.processor.prompt(question(frames))
    swap = {
        config["image_token_id"]: config["video_token_id"]
    }  # ours stand image tokens for frames
    assert [swap.get(t, t) for t in prompt.input_ids] == wanted["input_ids"]
    time, patches, values = vlm.processor.pixels(prompt).shape
    assert [time * patches, values] == wanted["shapes"]["pixel_values_videos"]
    answer = vlm.generate(question(frames), max_new_tokens=TOKENS)
    assert answer.token_ids == wanted["generated"]


def test_longer_videos_are_sampled_and_shorter_ones_refused(exported):
    name, _, bundle = exported
    vlm, frames = VLM.load(bundle.path, threads=1), film(SIZES[name], 7)
    long = vlm.processor.prompt(question(frames))
    short = vlm.processor.prompt(question(frames[[0, 2, 4, 6]], FPS * 4 / 7))
    if name == "qwen3_vl":  # tells when frames were seen: 0, 2, 4 and 6 of 2 a second
        assert "<0.5 seconds>" in long.text and "<2.5 seconds>" in long.text
    else:
        assert long.input_ids == short.input_ids and long.seconds == short.seconds
    np.testing.assert_array_equal(vlm.processor.pixels(long), vlm.processor.pixels(short))
    with pytest.raises(LuvcError, match=r"video of 3 frames.*4 frames or more.*--frames 3"):
        vlm.generate(question(frames[:3]))
    with pytest.raises(LuvcError, match="holds an image"):
        vlm.generate([{"role": "user", "content": [{"type": "image", "image": frames[0]}]}])


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
    ("name", "frames", "message"), [("llava", 4, "takes images only"), ("qwen2_vl", 3, "multiple")]
)
def test_videos_that_cannot_be_exported(tmp_path, name, frames, message):
    family = Family.load(str(write(name, tmp_path / name)))
    with pytest.raises(LuvcError, match=message):
        image_geometry(family, None, 1, frames)


# ---- compressed


@pytest.fixture(scope="module")
def compressed(gallery, tmp_path_factory):
    """Qwen3-VL, whose prompts tell the frames' times, for four frames at ratio 1.5."""
    name = "qwen3_vl"
    folder, sizes = tmp_path_factory.mktemp("compressed"), (SIZES[name],)
    config = gallery.config(
        name, output=folder / "bundle", ratio=1.5, frames=(4,), image_sizes=sizes
    )
    return export(config, family=gallery.family(name))


@pytest.mark.xdist_group("family-qwen3_vl")
def test_a_compressed_video_is_pytorchs(compressed):
    (report,), (layout,) = reports(compressed), compressed.manifest.layouts
    assert report.passed, report.failures()
    assert report.kept and all(k.overlap == 1 for k in report.kept)
    # two steps of two frames, 8 x 12 patches each, joined in blocks of 2 x 2
    assert layout.visual_tokens < layout.baseline_visual_tokens == 2 * 4 * 6
    vlm = VLM.load(compressed.path, threads=1)
    frames = film(SIZES["qwen3_vl"], 4)
    answer = vlm.generate(question(frames), max_new_tokens=TOKENS)
    assert answer.visual_tokens == layout.visual_tokens
    assert answer.stages and answer.stages == {p.layer: p.keep for p in layout.schedule.language}


@pytest.mark.xdist_group("family-qwen3_vl")
def test_run_takes_a_folder_of_frames(compressed, command, tmp_path):
    vlm, frames = VLM.load(compressed.path, threads=1), film(SIZES["qwen3_vl"], 4)
    for n, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{n}.png")
    line = (compressed.path, TEXT, "--video", tmp_path, "--max-new-tokens", TOKENS, "--threads", 1)
    counts = []
    for options, fps in (((), 1.0), (("--fps", 0.001), 0.001)):  # times of 3 and of 6 characters
        result = command(run_tool, *line, *options, "--json")
        assert result.code == 0, result.err
        told, wanted = (
            json.loads(result.out),
            vlm.generate(question(frames, fps), max_new_tokens=TOKENS),
        )
        assert told["token_ids"] == wanted.token_ids
        assert told["prompt_tokens"] == wanted.prompt_tokens
        counts.append(told["prompt_tokens"])
    assert counts[0] < counts[1]
