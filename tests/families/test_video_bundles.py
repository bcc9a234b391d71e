"""Bundles for videos: exported, compared with PyTorch, asked from a shell, timed and measured."""

import json

import pytest
from PIL import Image

from luvc.engines import VLM
from luvc.exporter import export
from luvc.exporter.check.parity import reports
from luvc.exporter.timing.prompt import TimedPrompt
from luvc.tools import run as run_tool
from luvc.tools.bench import cli as bench

from .films import COUNT, FAMILIES, TEXT, film
from .gallery import BRIEF, apart, only_once
from .reference import FPS

TOKENS = 8
# one process for a family's tests: each would export it again
NAMES = [apart(name, torchvision=False, slow=name != "qwen3_vl") for name in FAMILIES]


def question(frames, fps=FPS):
    video = {"type": "video", "video": list(frames), "fps": fps}
    return [{"role": "user", "content": [video, {"type": "text", "text": TEXT}]}]


@pytest.fixture(scope="module", params=NAMES)
def compressed(request, gallery, tmp_path_factory):
    """A bundle for four frames, with one merge and one stage, and its frames' size."""
    name = request.param
    if name == "smolvlm":
        pytest.importorskip("num2words", reason="needs the extra video")
    size, folder = FAMILIES[name].size, tmp_path_factory.mktemp("video")
    options = {"frames": (COUNT,), "image_sizes": (size,), "text_capacity": 192}
    config = gallery.config(name, output=folder / "bundle", schedule=BRIEF, **options)
    return export(config, only_once, family=gallery.family(name)), size


def test_a_compressed_video_is_pytorchs(compressed):
    bundle, size = compressed
    (report,), (layout,) = reports(bundle), bundle.manifest.layouts
    assert report.passed, report.failures()
    assert report.kept and all(k.overlap == 1 for k in report.kept)
    assert layout.visual_tokens < layout.baseline_visual_tokens
    if bundle.manifest.family == "qwen3_vl":
        # two steps of two frames, 8 x 12 patches each, joined in blocks of 2 x 2
        assert layout.baseline_visual_tokens == 2 * 4 * 6
    with VLM.load(bundle.path, threads=1) as vlm:
        answer = vlm.generate(question(film(size, COUNT)), max_new_tokens=TOKENS)
    assert answer.visual_tokens == layout.visual_tokens
    assert answer.stages and answer.stages == {p.layer: p.keep for p in layout.schedule.language}


def test_run_takes_a_folder_of_frames(compressed, command, tmp_path):
    bundle, size = compressed
    frames = film(size, COUNT)
    for n, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{n}.png")
    line = (bundle.path, TEXT, "--video", tmp_path, "--max-new-tokens", TOKENS, "--threads", 1)
    counts = []
    with VLM.load(bundle.path, threads=1) as vlm:
        for options, fps in (((), 1.0), (("--fps", 0.001), 0.001)):
            result = command(run_tool, *line, *options, "--json")
            assert result.code == 0, result.err
            told = json.loads(result.out)
            wanted = vlm.generate(question(frames, fps), max_new_tokens=TOKENS)
            assert told["token_ids"] == wanted.token_ids
            assert told["prompt_tokens"] == wanted.prompt_tokens
            counts.append(told["prompt_tokens"])
    if bundle.manifest.family == "qwen3_vl":  # times of 3 and of 6 characters
        assert counts[0] < counts[1]


def test_a_prompt_about_a_video_is_timed(compressed):
    prompt = TimedPrompt.of(compressed[0], text=120)
    assert prompt.text >= 60 and prompt.run() > 0


def test_videos_are_measured(compressed, command):
    line = (compressed[0].path, "--batch", 2, "--rounds", 1, "--warmup", 0, "--new-tokens", 2)
    result = command(bench, *line, "--threads", 1, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["cases"][0]["batch"] == 2
    result = command(bench, *line, "--compare", "hf")
    assert result.code == 2 and "is of videos" in result.err
