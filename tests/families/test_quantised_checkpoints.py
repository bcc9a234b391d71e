"""Quantised checkpoints, packed by hand: weights and answers are those of the numbers they stand for."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from luvc.engines import VLM
from luvc.engines.backends.ort.runner import OrtRunner
from luvc.engines.bundle.folder import WEIGHTS
from luvc.engines.bundle.schedule import ENERGY, Prune, Schedule
from luvc.errors import LuvcError
from luvc.exporter import ExportConfig, export
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.checkpoint.stored_as import rounding_of
from luvc.exporter.checkpoint.weights import load_model
from luvc.exporter.prepare import planned_weights

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


def cases():
    for name in ("internvl", "qwen2_5_vl"):
        for kind in KINDS:
            quick = name == "internvl" or kind == "awq"
            yield pytest.param(name, kind, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("name", "kind"), cases())
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


def test_a_quantised_head_is_its_own_where_the_config_ties_it(gallery, tmp_path):
    """The embedding keeps its numbers, and the head gets those of its codes."""
    source = shutil.copytree(gallery.checkpoint("internvl"), tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    embedding = tensors["language_model.model.embed_tokens.weight"]
    head = "language_model.lm_head.weight"
    save_file(tensors | {head: embedding.clone()}, source / "model.safetensors", {"format": "pt"})
    made, plain = quantise(source, tmp_path, "gptq", lambda name: products(name) or name == head)
    family = Family.load(str(made))
    assert family.config.tie_word_embeddings
    model = load_model(family)
    assert torch.equal(model.model.language_model.embed_tokens.weight, embedding)
    assert torch.equal(model.lm_head.weight, load_file(plain / "model.safetensors")[head])
    rounding = rounding_of(family, model, torch.float32, None)
    assert rounding is not None and rounding.covers("lm_head.weight")


def test_numbers_are_a_mapped_file_that_is_gone(gallery, tmp_path, monkeypatch):
    """The kernel says that parameters lie in a file of TMPDIR, which was deleted."""
    made, _ = quantise(gallery.checkpoint("internvl"), tmp_path, "fp8", products)
    place = tmp_path / "large"
    monkeypatch.setenv("TMPDIR", str(place))
    with pytest.raises(
        LuvcError, match=r"large is no folder with write access; name another one in TMPDIR"
    ):
        load_model(Family.load(str(made)))
    place.mkdir()
    model = load_model(Family.load(str(made)))
    assert not list(place.iterdir())
    lines = [
        line for line in Path("/proc/self/maps").read_text().splitlines() if str(place) in line
    ]
    assert lines and all(line.endswith("(deleted)") for line in lines)
    ranges = [[int(x, 16) for x in line.split()[0].split("-")] for line in lines]
    for name, p in model.named_parameters():
        assert any(a <= p.data_ptr() < b for a, b in ranges), name


def test_codes_of_another_weight_are_not_kept(gallery, tmp_path):
    """Two layers changed places while they were loaded: the codes are not those of the numbers."""
    made, _ = quantise(gallery.checkpoint("internvl"), tmp_path, "compressed-w4", products)
    family = Family.load(str(made))
    model = load_model(family)
    rounding = rounding_of(family, model, torch.float32, None)
    assert rounding is not None
    name = "model.language_model.layers.1.mlp.up_proj.weight"
    weight = model.get_parameter(name)
    codes, scales = rounding.encoded(weight, name)
    numbers = rounding.unpacked(codes).float() * scales.repeat_interleave(32, 1)
    assert torch.equal(numbers, weight)
    with pytest.raises(
        LuvcError, match=r"up_proj.weight was loaded with other values than .* stands for"
    ):
        rounding.encoded(model.get_parameter(name.replace("layers.1", "layers.2")), name)


KEPT = {  # by bundles, as codes
    "gptq": "int4 with a scale for each 32 inputs",
    "compressed-w4": "int4 with a scale for each 32 inputs",
    "compressed-int8": "int8 with a scale for each output",
}
QUICK = ("compressed-w4",)


@pytest.mark.parametrize(
    "kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in KINDS]
)
def test_pruned_answers_are_hugging_faces_with_these_numbers(gallery, tmp_path, kind):
    """Hugging Face has the numbers as a plain checkpoint, rows dropped by hand; ours is the file's."""
    made, plain = quantise(gallery.checkpoint("internvl"), tmp_path, kind, products)
    keeps = {1: 12, 2: 6}
    prunes = tuple(Prune(layer=i, keep=k) for i, k in keeps.items())
    schedule = Schedule(language=prunes, score=ENERGY.having(cutoff=0.4))
    options = {"output": tmp_path / "bundle", "schedule": schedule, **SHORT}
    config = ExportConfig.make(model=str(made), **options)
    bundle = export(config, only_once)
    m = bundle.manifest
    assert m.validated and m.quantised_as and str(m.weights) == KEPT.get(kind, "None")
    assert "quantization_config" not in bundle.file("processor/config.json").read_text()
    runner = OrtRunner(bundle, threads=1, as_written=True)  # kernels for codes round activations
    vlm, (model, proc) = VLM(bundle, runner), reference.load(plain)
    shown = pictures(m.layouts[0].image_size, 1)
    hand = ByHand(model, reference.inputs(proc, QUESTION, shown), keeps, 0.4)
    wanted = hand.logits().numpy()
    prompt = vlm.processor.prompt(question(shown))
    _, result, _ = vlm.prefill([prompt])
    for layer, stage in result.stages.items():
        assert stage.kept[0].tolist() == hand.kept[layer]
    assert np.abs(result.logits[0] - wanted).max() <= 1e-4 * np.abs(wanted).max()
    answer = vlm.generate(question(shown), max_new_tokens=12).token_ids
    assert answer == hand.generate(12, list(vlm.sampling.eos_token_id))
    if kind in KEPT:
        check_codes(bundle, made)
    if kind in QUICK:
        check_planned_bytes(bundle, made, config)


def check_codes(bundle, made):
    """The bundle's codes and scales are the checkpoint's, unpacked here by the formats' definitions."""
    ours, theirs = load_file(bundle.file(WEIGHTS)), load_file(made / "model.safetensors")
    coded = [n.removesuffix(".weight.codes") for n in ours if n.endswith(".codes")]
    assert len(coded) == 4 * 7
    for name in coded:
        place = name.replace("model.language_model", "language_model.model")
        codes, scales = ours[f"{name}.weight.codes"].numpy(), ours[f"{name}.weight.scales"]
        if f"{place}.weight" in theirs:
            assert np.array_equal(codes.T, theirs[f"{place}.weight"].numpy())
            assert torch.equal(scales, theirs[f"{place}.weight_scale"].view(-1).float())
            continue
        along = f"{place}.weight_packed" in theirs
        packed = theirs[f"{place}.weight_packed"] if along else theirs[f"{place}.qweight"].T
        halves = packed.contiguous().numpy().view(np.uint8)  # the lowest four bits are the first
        assert np.array_equal(codes, halves ^ 0x88)
        scale = theirs[f"{place}.weight_scale"] if along else theirs[f"{place}.scales"].T
        assert torch.equal(scales, scale.float())


def check_planned_bytes(bundle, made, config):
    """A plan knows how large the bundle's weights are, also where the checkpoint's are not there."""
    wanted = bundle.manifest.files[WEIGHTS].bytes
    assert planned_weights(Family.load(str(made)), config).bytes == wanted
    (made / "model.safetensors").unlink()
    assert planned_weights(Family.load(str(made)), config).bytes == wanted


def test_what_is_quantised_is_not_quantised_again(gallery, tmp_path):
    made, _ = quantise(gallery.checkpoint("internvl"), tmp_path, "compressed-w4", products)
    refused = ExportConfig.make(model=str(made), ratio=1, output=tmp_path / "other", weights="int8")
    with pytest.raises(
        LuvcError, match=r"--weights int8: .* is quantised already .*: leave --weights out"
    ):
        export(refused)
