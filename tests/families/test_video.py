"""Videos of the Qwen-VL families: the same prompt, pixels and answer as Hugging Face's own processor.

Hugging Face's video processors need torchvision, so they run in a process of their own; ours do not.
"""

import json

import numpy as np
import pytest

from luvc.engines import VLM
from luvc.errors import LuvcError
from luvc.exporter import ExportConfig, export
from luvc.exporter.family import Family
from luvc.exporter.turns import TimedPrompt
from luvc.tools import bench

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
NAMES = [apart(name, torchvision=False) for name in SIZES]


@pytest.fixture(scope="module", params=NAMES)
def exported(request, tmp_path_factory):
    """A checkpoint and its bundle at ratio 1 for four frames."""
    folder = tmp_path_factory.mktemp("video")
    checkpoint = write(request.param, folder / request.param)
    bundle = export(
        ExportConfig.make(
            model=str(checkpoint), output=folder / "bundle", ratio=1.0, frames=(4,),
            image_sizes=(SIZES[request.param],), text_capacity=96,
        )
    )  # fmt: skip
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
        "-m", "tests.families.reference", str(checkpoint), "--text", TEXT,
        "--video", str(tmp_path / "frames.npy"),
    )  # fmt: skip
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
    assert long.input_ids == short.input_ids
    np.testing.assert_array_equal(vlm.processor.pixels(long), vlm.processor.pixels(short))
    with pytest.raises(LuvcError, match=r"video of 3 frames.*4 frames or more.*--frames 3"):
        vlm.generate(question(frames[:3]))
    with pytest.raises(LuvcError, match="holds an image"):
        vlm.generate([{"role": "user", "content": [{"type": "image", "image": frames[0]}]}])


@pytest.mark.parametrize(
    ("name", "frames", "message"), [("llava", 4, "takes images only"), ("qwen2_vl", 3, "multiple")]
)
def test_videos_that_cannot_be_exported(tmp_path, name, frames, message):
    family = Family.load(str(write(name, tmp_path / name)))
    with pytest.raises(LuvcError, match=message):
        family.picture(None, 1, frames)
