"""The test material itself: checkpoints that Hugging Face loads and that answer like models."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoTokenizer,
)

from luvc.exporter.checkpoint.family import Family
from luvc.exporter.checkpoint.weights import load_model

from . import reference
from .checkpoints import NAMES, WORDS, family_of, write
from .with_torchvision import python, torchvision_or_skip

TORCHVISION = [n for n in NAMES if family_of(n) == "lfm2_vl"]
VIDEO = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Writes a checkpoint once for this file."""
    torch.set_num_threads(1)
    root, made = tmp_path_factory.mktemp("checkpoints"), {}

    def get(name):
        if name not in made:
            made[name] = write(name, root / name)
        return made[name]

    return get


def picture(height, width, seed=0):
    """Blocks of random colours, so that neighbouring tokens differ."""
    from PIL import Image

    blocks = np.random.default_rng(seed).random((height // 20, width // 20, 3))
    return Image.fromarray((np.kron(blocks, np.ones((20, 20, 1))) * 255).astype("uint8"))


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_is_complete(checkpoint, name):
    folder = checkpoint(name)
    family, words = family_of(name), WORDS[family_of(name)]
    config = AutoConfig.from_pretrained(folder)
    assert config.model_type == family
    loaded: Any = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    model, found = loaded
    assert not any(found.values()), found
    assert all(p.std() > 0 for p in model.parameters() if p.numel() > 1)
    tokens = AutoTokenizer.from_pretrained(folder)
    assert config.text_config.vocab_size == len(tokens) == model.lm_head.weight.shape[0]
    visual = tokens.convert_tokens_to_ids(words.visual)
    assert visual == getattr(config, "image_token_id", None) != tokens.unk_token_id
    assert model.generation_config.eos_token_id[0] == tokens.eos_token_id
    assert bool(tokens.chat_template) == (family != "paligemma")
    if name not in TORCHVISION:
        images = AutoImageProcessor.from_pretrained(folder, backend="pil")
        assert type(images).__name__.endswith("Pil")


@pytest.mark.parametrize("name", [n for n in NAMES if n not in TORCHVISION])
def test_hugging_face_answers(checkpoint, name):
    model, proc = reference.load(checkpoint(name))
    one, two = [picture(120, 180)], [picture(120, 180), picture(200, 120, seed=1)]
    answers = [check(model, proc, WORDS[family_of(name)], images) for images in (one, two, two[1:])]
    assert answers[0] != answers[2]  # the picture matters
    assert len({token for answer in answers for token in answer}) > 4, answers


def check(model, proc, words, images):
    """The answer, after a look at the features: they fit the prompt, and vary."""
    given = reference.inputs(proc, "What is this?", images)
    ids = given["input_ids"][0].tolist()
    found = reference.features(model, given)
    visual = proc.tokenizer.convert_tokens_to_ids(words.visual)
    for rows in (found.tokens, *found.taps):
        assert rows.shape == (ids.count(visual), model.config.text_config.hidden_size)
        assert rows.isfinite().all() and rows.std(0).min() > 1e-3
    return reference.generate(model, proc, images, "What is this?", 12)


def test_only_named_changes_change_a_checkpoint(tmp_path):
    write(
        "qwen2_vl", tmp_path / "a", text_config={"num_hidden_layers": 2}, images={"patch_size": 16}
    )
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["text_config"]["num_hidden_layers"] == 2
    assert config["text_config"]["hidden_size"] == 256
    images = json.loads((tmp_path / "a" / "preprocessor_config.json").read_text())
    assert (images["patch_size"], images["merge_size"]) == (16, 2)


def test_weights_that_transformers_leaves_out_are_told(checkpoint, tmp_path):
    """GLM-OCR's published checkpoint holds a 17th layer, which predicts ahead."""
    ahead = "model.language_model.layers.16.eh_proj.weight"
    folder = Path(shutil.copytree(checkpoint("glm_ocr"), tmp_path / "checkpoint"))
    file = folder / "model.safetensors"
    save_file(load_file(file) | {ahead: torch.zeros(4, 4)}, file, metadata={"format": "pt"})
    said: list[str] = []
    load_model(Family.load(str(folder)), said.append)
    name = "GlmOcrForConditionalGeneration"
    assert said[-1] == f"passing over 1 weights that {name} has no use for, such as {ahead}"


def test_inputs_are_those_of_auto_processor(checkpoint):
    torchvision_or_skip()
    families = [n for n in NAMES if n == family_of(n)]
    done = python("-m", "tests.families.auto_processor", *map(str, map(checkpoint, families)))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [f"{n}: same" for n in families]


@pytest.mark.parametrize("name", TORCHVISION)
def test_lfm2_vl_answers_with_torchvision(checkpoint, name, tmp_path):
    torchvision_or_skip()
    picture(120, 180).save(tmp_path / "image.png")
    result = answer_apart(checkpoint(name), "--image", str(tmp_path / "image.png"))
    visual = json.loads((checkpoint(name) / "config.json").read_text())["image_token_id"]
    assert len(result["features"]) == result["input_ids"].count(visual)
    assert len(set(result["generated"])) > 1


@pytest.mark.parametrize("name", VIDEO)
def test_a_video_is_answered_with_torchvision(checkpoint, name, tmp_path):
    torchvision_or_skip()
    frames = [np.asarray(picture(140, 180, seed)) for seed in range(4)]
    np.save(tmp_path / "frames.npy", np.stack(frames))
    result = answer_apart(checkpoint(name), "--video", str(tmp_path / "frames.npy"))
    patches, _ = result["shapes"]["pixel_values_videos"]
    config = json.loads((checkpoint(name) / "config.json").read_text())
    # GLM stands image tokens for the frames of a video.
    token = config["image_token_id" if name == "glm4v" else "video_token_id"]
    assert result["input_ids"].count(token) == patches // 4
    assert len(set(result["generated"])) > 1


def answer_apart(folder, *arguments):
    done = python("-m", "tests.families.reference", str(folder), *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
