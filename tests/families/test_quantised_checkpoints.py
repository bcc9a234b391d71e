"""Quantised checkpoints, packed by hand: weights and answers are those of the numbers they stand for."""

import re

import numpy as np
import pytest
import torch

from luvc.engines import VLM
from luvc.engines.bundle.schedule import ENERGY, Prune, Schedule
from luvc.exporter import ExportConfig, export
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.checkpoint.weights import load_model

from . import reference
from .gallery import QUESTION, SHORT, only_once, pictures, question
from .packers import KINDS, quantise
from .pruned_by_hand import ByHand


def products(name: str) -> bool:
    """Linear layers of the language model, as libraries choose them: neither head nor tower."""
    return bool(re.search(r"\bmodel\.layers\.\d+\.(self_attn|mlp)\.\w+\.weight$", name))


def newer(name: str) -> str:
    """Names of Qwen2.5-VL as modules have them; most files keep the older ones, as the gallery's do."""
    inner = re.sub(r"^model\.", "model.language_model.", name)
    return inner if inner != name else re.sub(r"^visual\.", "model.visual.", name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["internvl", "qwen2_5_vl"])
def test_weights_are_the_numbers_they_stand_for(gallery, tmp_path, name, kind):
    renamed = newer if name == "qwen2_5_vl" else str
    made, plain = quantise(gallery.checkpoint(name), tmp_path, kind, products, renamed)
    told = []
    found = load_model(Family.load(str(made)), told.append).state_dict()
    wanted = load_model(Family.load(str(plain))).state_dict()
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert torch.equal(found[key], tensor), key
    assert any("making numbers of" in step for step in told)


QUICK = ("gptq-activation-order",)


@pytest.mark.parametrize(
    "kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in KINDS]
)
def test_pruned_answers_are_hugging_faces_with_these_numbers(gallery, tmp_path, kind):
    """Hugging Face has the numbers as a plain checkpoint, rows dropped by hand; ours is the file's."""
    made, plain = quantise(gallery.checkpoint("internvl"), tmp_path, kind, products)
    keeps = {1: 12, 2: 6}
    prunes = tuple(Prune(layer=i, keep=k) for i, k in keeps.items())
    schedule = Schedule(language=prunes, score=ENERGY.having(cutoff=0.4))
    config = {"output": tmp_path / "bundle", "schedule": schedule, **SHORT}
    bundle = export(ExportConfig.make(model=str(made), **config), only_once)
    assert bundle.manifest.validated and bundle.manifest.quantised_as
    assert "quantization_config" not in bundle.file("processor/config.json").read_text()
    vlm, (model, proc) = VLM.load(bundle.path, threads=1), reference.load(plain)
    shown = pictures(bundle.manifest.layouts[0].image_size, 1)
    hand = ByHand(model, reference.inputs(proc, QUESTION, shown), keeps, 0.4)
    wanted = hand.logits().numpy()
    prompt = vlm.processor.prompt(question(shown))
    _, result, _ = vlm.prefill([prompt])
    for layer, stage in result.stages.items():
        assert stage.kept[0].tolist() == hand.kept[layer]
    assert np.abs(result.logits[0] - wanted).max() <= 1e-4 * np.abs(wanted).max()
    answer = vlm.generate(question(shown), max_new_tokens=12).token_ids
    assert answer == hand.generate(12, vlm.sampling.eos_token_id)
