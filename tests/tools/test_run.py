"""`luvc-run` as people type it."""

import json
import shutil
import sys

import pytest

from luvc.engines import Bundle
from luvc.tools import run as run_tool

from ..conftest import ask


def test_run_streams_and_prints_counts(command, workshop, photo):
    bundle = workshop.bundle("qwen2")
    result = command(run_tool, bundle.path, "Why?", "--image", photo, "-v", "--max-new-tokens", "8")
    assert result.code == 0, result.err
    layout = bundle.manifest.layouts[0]
    assert f"{layout.baseline_visual_tokens} at ratio 1, {layout.visual_tokens} enter" in result.err
    layers = ", ".join(str(p.layer) for p in layout.schedule.language)
    assert f"-> 0 (pruned before layers {layers})" in result.err
    data = json.loads(
        command(
            run_tool, bundle.path, "Why?", "--image", photo, "--json", "--max-new-tokens", "8"
        ).out
    )
    assert data["text"] == result.out[:-1]
    assert data["visual_tokens"] == layout.visual_tokens


def test_run_samples_as_it_is_told(command, workshop, photo):
    vlm, tokens = workshop.vlm("qwen2"), []
    line = (vlm.bundle.path, "Why?", "--image", photo, "--max-new-tokens", 20, "--threads", 1)
    for seed in (5, 6):
        sampled = ("--temperature", 1.5, "--top-p", 0.95, "--top-k", 40, "--seed", seed)
        sampled += ("--repetition-penalty", 1.3)
        result = command(run_tool, *line, *sampled, "--json")
        assert result.code == 0, result.err
        tokens.append(json.loads(result.out)["token_ids"])
        wanted = vlm.generate(
            ask("Why?", str(photo)),
            max_new_tokens=20,
            temperature=1.5,
            top_p=0.95,
            top_k=40,
            repetition_penalty=1.3,
            seed=seed,
        )
        assert tokens[-1] == wanted.token_ids
    assert tokens[0] != tokens[1]


def test_run_takes_the_ratio_it_is_told(command, workshop, photo):
    """The nearest, which is said without --verbose too."""
    bundle = workshop.bundle("qwen2-ratios").path
    line = (bundle, "Why?", "--image", photo, "--max-new-tokens", 2)
    for option, taken in ((("--ratio", "2.5x"), 2.5), (("--image-tokens", "36"), 1.0)):
        result = command(run_tool, *line, *option, "--json")
        assert json.loads(result.out)["ratio"] == taken
    result = command(run_tool, *line, "--ratio", "9x")
    assert "ratio 9x was asked for, 2.5x is the nearest of the bundle" in result.err
    result = command(run_tool, *line, "--ratio", "2x", "--image-tokens", "36")
    assert result.code == 2 and "give one of them" in result.err


def test_run_takes_the_layout_it_is_told(command, workshop, photo, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "luvc.tools.token_map.draw", lambda images, layout, *rest: drawn.append(layout.name)
    )
    bundle = workshop.bundle("qwen2-layouts", 1).path
    line = (bundle, "Why?", "--image", photo, "--max-new-tokens", 2, "--json", "--show-tokens", "x")
    for name in ("56x56", "56x112"):
        result = command(run_tool, *line, "--layout", name)
        assert result.code == 0, result.err
        assert json.loads(result.out)["layout"] == name == drawn[-1]
    refused = command(run_tool, *line, "--layout", "9x9")
    assert refused.code == 2 and "there is no layout '9x9' in this bundle, only" in refused.err


def test_run_says_when_the_capacity_ends_it(command, workshop, photo):
    bundle = workshop.bundle("qwen2")
    result = command(run_tool, bundle.path, "Why?", "--image", photo, "--max-new-tokens", "900")
    assert result.code == 0 and "stopped: the bundle holds 96 text tokens" in result.err
    assert "larger --text-capacity" in result.err


def test_run_says_when_the_models_positions_end_it(command, workshop, picture, photo, tmp_path):
    """A larger capacity is no help then, and is not advised."""
    path = shutil.copytree(workshop.bundle("qwen2").path, tmp_path / "bundle")
    end = len(workshop.vlm("qwen2").processor.prompt(ask("Why?", picture)).input_ids) + 2
    bundle = Bundle.load(path)
    language = bundle.manifest.language.model_copy(update={"max_positions": end})
    bundle.with_manifest(bundle.manifest.model_copy(update={"language": language}))
    result = command(run_tool, path, "Why?", "--image", photo, "--max-new-tokens", "900")
    assert f"stopped: the model was made for the positions below {end}:" in result.err
    assert result.code == 0 and "--text-capacity" not in result.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("nowhere", "Why?", "--image", "photo.png"), "is not a folder"),
        (("BUNDLE", "Why?", "--image", "nowhere.png"), "nowhere.png cannot be read"),
        (
            ("BUNDLE", "Why?", "--image", "PHOTO", "--image", "PHOTO"),
            "2 images, this bundle holds 1",
        ),
        (("BUNDLE", "Why?", "--image", "PHOTO", "--backend", "abacus"), "abacus"),
        (("BUNDLE", "Why?", "--image", "PHOTO", "--top-p", "7"), "top_p"),
        (
            ("BUNDLE", "Why?"),
            "the prompt has no images, this bundle holds 1: give one, or export with --images 0 too",
        ),
    ],
)
def test_run_refuses(command, workshop, photo, args, message):
    names = {"BUNDLE": workshop.bundle("qwen2").path, "PHOTO": photo}
    result = command(run_tool, *(names.get(a, a) for a in args))
    assert result.code == 2 and message in result.err


def test_a_missing_onnx_runtime_is_a_clear_message(command, workshop, photo, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = command(run_tool, workshop.bundle("qwen2").path, "Why?", "--image", photo)
    assert result.code == 2 and "pip install 'luvc-export[cpu]'" in result.err
