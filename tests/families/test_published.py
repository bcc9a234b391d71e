"""Shapes of published models: they load, and have as many parameters as the published models."""

import pytest
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from . import published

# In billions, as the model pages show them.
PARAMETERS = {
    "GLM-4.1V-9B-Thinking": 10.29,
    "GLM-4.6V-Flash": 10.29,
    "GLM-OCR": 1.11,
    "Idefics3-8B-Llama3": 8.46,
    "InternVL2_5-8B": 8.08,
    "InternVL3-1B-hf": 0.94,
    "InternVL3-8B-hf": 7.94,
    "LFM2-VL-1.6B": 1.58,
    "LightOnOCR-1B-1025": 1.01,
    "Ministral-3-8B-Instruct-2512-BF16": 8.92,
    "Mistral-Small-3.1-24B-Instruct-2503": 24.01,
    "Ovis2-8B-hf": 8.94,
    "PaddleOCR-VL": 0.80,
    "Qwen2-VL-7B-Instruct": 8.29,
    "Qwen2.5-VL-7B-Instruct": 8.29,
    "Qwen3-VL-8B-Instruct": 8.77,
    "Qwen3.5-9B": 9.41,
    "SmolVLM-500M-Instruct": 0.51,
    "SmolVLM2-2.2B-Instruct": 2.25,
    "gemma-3-4b-it": 4.30,
    "gemma-4-31B-it": 31.27,
    "gemma-4-E2B-it": 5.10,
    "llava-1.5-7b-hf": 7.06,
    "llava-onevision-qwen2-7b-ov-hf": 8.03,
    "llava-v1.6-mistral-7b-hf": 7.57,
    "paligemma-3b-mix-448": 2.92,
    "paligemma2-3b-mix-448": 3.03,
}


def test_every_family_has_a_published_shape():
    from .preprocessing import PROCESSORS

    assert set(PARAMETERS) == set(published.NAMES)
    assert {published.config(n)["model_type"] for n in published.NAMES} == set(PROCESSORS)


@pytest.mark.parametrize("name", published.NAMES)
def test_a_published_shape_has_the_published_size(name, tmp_path):
    folder = published.write(name, tmp_path)
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    billions = sum(p.numel() for p in model.parameters()) / 1e9
    assert billions == pytest.approx(PARAMETERS[name], abs=0.0075)
    tokens = AutoTokenizer.from_pretrained(folder)
    assert tokens.added_tokens_decoder[config.image_token_id].special
    if config.model_type != "lfm2_vl":
        AutoImageProcessor.from_pretrained(folder, backend="pil")
