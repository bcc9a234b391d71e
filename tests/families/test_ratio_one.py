"""Ratio 1 is the unmodified model: inputs, visual features and answers are Hugging Face's own."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from luvc.exporter.vision.graph import VisionGraph
from luvc.tools.hugging_face import model_inputs

from . import reference
from .checkpoints import write
from .gallery import QUESTION, Gallery, names, pictures, question
from .prompts import tokenizer


@pytest.mark.cell("ratio 1")
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("name", names())
def test_ratio_one_is_hugging_face(gallery, name, images):
    model, proc = gallery.hugging_face(name)
    vlm = gallery.in_pytorch(name, ratio=1, images=(images,))
    (layout,) = vlm.manifest.layouts
    shown = pictures(layout.image_size, images)
    wanted = reference.inputs(proc, QUESTION, shown)
    prompt = vlm.processor.prompt(question(shown))
    assert prompt.input_ids == wanted["input_ids"][0].tolist()
    pixels = vlm.processor.pixels(prompt)
    theirs = wanted["pixel_values"].numpy()
    # LFM2-VL pads to its longest tile, Gemma 4 to its budget
    padded = {"pixel_attention_mask", "image_position_ids"} & wanted.keys()
    if padded and theirs.ndim == 3:
        theirs = theirs[:, : layout.pixel_shape[1]]
    np.testing.assert_allclose(pixels.ravel(), theirs.ravel(), atol=1e-6)
    tower = VisionGraph(vlm.runner.model, gallery.family(name).adapter, layout)
    with torch.no_grad():
        features = tower(torch.from_numpy(pixels)).flatten(0, -2)
    found = reference.features(model, wanted)
    whole = torch.cat([found.tokens, *found.taps], -1)
    assert (features - whole).abs().max() <= 1e-5 * whole.abs().max()
    answer = reference.generate(model, proc, shown, QUESTION, 16)
    assert vlm.generate(question(shown), max_new_tokens=16).token_ids == answer


@pytest.mark.parametrize("name", names())
def test_inputs_for_hugging_face_are_those_of_its_processor(gallery, name):
    model, proc = gallery.hugging_face(name)
    vlm = gallery.in_pytorch(name, ratio=1)
    shown = pictures(vlm.manifest.layouts[0].image_size, 1)
    taken = inspect.signature(model.forward).parameters
    wanted = {k: v for k, v in reference.inputs(proc, QUESTION, shown).items() if k in taken}
    wanted.pop("labels", None)  # PaliGemma's, for training
    prompt = vlm.processor.prompt(question(shown))
    given = model_inputs(model, gallery.family(name), vlm.processor, [prompt])
    assert given.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(given[key], value, atol=1e-6, rtol=0, check_dtype=False)


def test_an_image_token_behind_the_vocabulary(tmp_path):
    """As in PaliGemma's first checkpoints: nothing looks its embedding up."""
    folder = tmp_path / "checkpoints" / "paligemma"
    tokens = tokenizer("paligemma")
    write("paligemma", folder, image_token_index=len(tokens))
    file = folder / "tokenizer.json"
    file.write_text(file.read_text().replace("<image>", "<unused>"))
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text().replace("<image>", "<unused>"))
    changed = AutoTokenizer.from_pretrained(folder)
    changed.add_special_tokens({"additional_special_tokens": ["<image>"]})
    assert changed.convert_tokens_to_ids("<image>") == len(tokens), "behind every row"
    changed.save_pretrained(folder)
    gallery = Gallery(tmp_path)
    model, proc = gallery.hugging_face("paligemma")
    vlm = gallery.in_pytorch("paligemma", ratio=1)
    assert vlm.manifest.language.image_token_id == vlm.manifest.language.vocab_size
    shown = pictures(vlm.manifest.layouts[0].image_size, 1)
    wanted = reference.generate(model, proc, shown, QUESTION, 16)
    asked: tuple[dict[str, Any], ...] = ({}, {"repetition_penalty": 1.0001})
    for options in asked:
        assert vlm.generate(question(shown), max_new_tokens=16, **options).token_ids == wanted
