"""Bundles of calibrated weights: what they were calibrated on, what they say, what is refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from luvc.engines.bundle.folder import FACTORS, WEIGHTS, Bundle
from luvc.errors import LuvcError
from luvc.exporter import ExportConfig, export
from luvc.exporter.check.calibration import calibrate
from luvc.exporter.check.parity import reference_runner, reports
from luvc.exporter.checkpoint import stored
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.checkpoint.weights import load_model
from luvc.exporter.prepare import prepare
from luvc.exporter.quantised.calibrated import codes_of
from luvc.exporter.quantised.rounding import Rounding
from luvc.tools.hugging_face import model_inputs, unmerged

from .method_graphs import FEW_LAYERS
from .quantised.test_gptq import by_the_paper

pytestmark = pytest.mark.xdist_group("calibrated")  # they share what takes long to export

QUESTIONS = ("What colour is the largest shape?", "How many shapes are there?", "Why?")
FIRST = "model.language_model.layers.0.self_attn.k_proj.weight"
NORM = "model.language_model.layers.0.input_layernorm.weight"
LAYERS = "model.language_model.layers"
SMALL = {"reference_text": 8, "text_capacity": 96, "ratio": 2.0, "cutoff": 0.5}


@pytest.fixture(scope="module")
def data(tmp_path_factory, picture):
    """Questions with a picture and no answer."""
    folder = tmp_path_factory.mktemp("questions")
    Image.fromarray(picture).save(folder / "a.png")
    lines = [json.dumps({"image": "a.png", "question": text}) for text in QUESTIONS]
    (folder / "q.jsonl").write_text("\n".join(lines))
    return folder / "q.jsonl"


@pytest.fixture(scope="module")
def checkpoint(workshop, tmp_path_factory):
    """Some channels of its first norms are far out, as those of trained models are."""
    plain = workshop.checkpoint(layers=4, vision_layers=2, image=168, text="qwen2")
    folder = shutil.copytree(plain, tmp_path_factory.mktemp("far") / "checkpoint")
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if "layers.0." in name and name.endswith("layernorm.weight") and "vis" not in name:
            tensor[::7] *= 3
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(
    scope="module", params=[{"weights": "int4", "group_size": 64}, {"weights": "int8"}], ids=str
)
def bundle(request, checkpoint, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrated")
    told = []
    options = request.param | {"calibrate": data} | SMALL
    config = ExportConfig.make(model=str(checkpoint), output=folder / "bundle", **options)
    made = export(config, told.append)
    assert any("calibrating on" in x and "of 3 questions, fewer than" in x for x in told)
    assert [p.name for p in folder.iterdir()] == ["bundle"]
    return made


only_int8 = pytest.mark.parametrize("bundle", [{"weights": "int8"}], indirect=True, ids=str)


def factors_of(bundle):
    """By the norm or product that was divided."""
    return {name.split()[0]: f for name, f in load_file(bundle.file(FACTORS)).items()}


def test_graphs_are_pytorchs_with_the_bundles_codes(bundle):
    assert bundle.manifest.calibrated == len(QUESTIONS)
    written = next(r for r in reports(bundle) if not r.rounded)
    assert written.passed and max(s.relative_error for s in written.stages) <= 1e-4
    with reference_runner(bundle) as reference:
        numbers = dict(reference.model.named_parameters())[FIRST].detach()
    with safe_open(str(bundle.file(WEIGHTS)), "pt") as file:
        codes, scales = (file.get_tensor(FIRST + end) for end in (".codes", ".scales"))
    whole = Rounding(bundle.manifest.weights, torch.float32).unpacked(codes).float()
    groups = whole.unflatten(1, (scales[0].numel(), -1))
    assert torch.equal(numbers, (groups * scales.view(*groups.shape[:2], 1)).flatten(1))


def test_the_first_layers_codes_are_the_papers_for_what_hugging_face_gives_it(
    bundle, checkpoint, data, picture
):
    family = Family.load(str(checkpoint))
    model = load_model(family).float()
    given = []
    layer = model.model.language_model.layers[0].self_attn.k_proj
    layer.register_forward_pre_hook(lambda module, args: given.append(args[0][0].double()))
    processor = unmerged(bundle, family)
    for text in QUESTIONS:
        parts = [{"type": "image", "image": picture}, {"type": "text", "text": text}]
        prompt = processor.prompt([{"role": "user", "content": parts}])
        with torch.inference_mode():
            model(**model_inputs(model, family, processor, [prompt]))
    factors = np.ones(layer.in_features)
    if bundle.manifest.weights.kind == "int8":
        factors = factors_of(bundle)[NORM.removesuffix(".weight")].double().numpy()
    x = torch.cat(given).T.numpy() / factors[:, None]
    how = bundle.manifest.weights
    wanted, _ = by_the_paper(layer.weight.detach().double().numpy() * factors, x @ x.T, how)
    with safe_open(str(bundle.file(WEIGHTS)), "pt") as file:
        codes = file.get_tensor(f"{FIRST}.codes")
    found = Rounding(how, torch.float32).unpacked(codes).numpy()
    assert np.mean(found == wanted) > 0.99  # float32 here, float64 there


def test_codes_of_another_checkpoint_are_noticed(bundle, checkpoint, tmp_path):
    """Calibrated numbers are no nearest ones, and still look like the checkpoint's."""
    other = shutil.copytree(checkpoint, tmp_path / "other")
    file = other / "model.safetensors"
    turned = {n: x.flip(0) if "_proj" in n else x for n, x in load_file(file).items()}
    save_file(turned, file, {"format": "pt"})
    with pytest.raises(LuvcError, match="codes was loaded with other values than its file holds"):
        reference_runner(bundle, str(other))


@only_int8
def test_a_norm_of_another_checkpoint_is_noticed(bundle, checkpoint, tmp_path, monkeypatch):
    """It is the checkpoint's, divided by the bundle's factors."""
    with safe_open(str(bundle.file(WEIGHTS)), "pt") as file:
        numbers = file.get_tensor(NORM)
    factors = factors_of(bundle)[NORM.removesuffix(".weight")]
    tensors = load_file(checkpoint / "model.safetensors")
    assert not torch.equal(factors, torch.ones_like(factors))
    ours = next(n for n in tensors if n.endswith(NORM.partition("layers")[2]) and "vis" not in n)
    torch.testing.assert_close(numbers * factors, tensors[ours].float(), rtol=1e-6, atol=0)
    monkeypatch.setattr(stored, "SAMPLE", 10_000)  # all of them
    codes = codes_of(bundle, torch.float32, LAYERS)
    compared = stored.check_stored(Family.load(str(checkpoint)), bundle.file(WEIGHTS), codes)
    assert compared >= 0.9 * len(tensors)
    other = shutil.copytree(checkpoint, tmp_path / "other")
    save_file(tensors | {ours: tensors[ours] + 0.01}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(LuvcError, match=r"input_layernorm.* was loaded with other values"):
        stored.check_stored(Family.load(str(other)), bundle.file(WEIGHTS), codes)


FIRST_NORM = f"{LAYERS}.0.input_layernorm"


def renamed(tensors, old, new):
    return {name.replace(old, new): factors for name, factors in tensors.items()}


SPOILT = {
    "embedding": (
        lambda t: renamed(t, FIRST_NORM, "model.language_model.embed_tokens"),
        "is not below",
    ),
    "tower": (lambda t: renamed(t, LAYERS, "model.vision_tower.encoder.layer"), "is not below"),
    "no layer": (lambda t: renamed(t, ".0.", ".99."), "is no norm and no product"),
    "no norm": (lambda t: renamed(t, "input_layernorm", "self_attn"), "is no norm and no product"),
    "another layer's": (
        lambda t: renamed(t, "0.self_attn.k", "1.self_attn.k"),
        "no product of that layer",
    ),
    "no product": (lambda t: renamed(t, "k_proj", "other"), "no product of that layer"),
    "not its input": (lambda t: renamed(t, "up_proj m", "gate_proj m"), "not what .* is given"),
    "twice": (lambda t: renamed(t, "k_proj", "q_proj"), "is there twice"),
    "nobody": (lambda t: {n.split()[0]: f for n, f in t.items()}, "nothing undoes its factors"),
    "one for all": (lambda t: {n: f[:1].clone() for n, f in t.items()}, "has factors of shape"),
    "matrix": (lambda t: {n: f[None] for n, f in t.items()}, "has factors of shape"),
    "negative": (lambda t: {n: -f for n, f in t.items()}, "not finite and above 0"),
    "zero": (lambda t: {n: f * 0 for n, f in t.items()}, "not finite and above 0"),
    "infinite": (lambda t: {n: f / 0 for n, f in t.items()}, "not finite and above 0"),
    "no number": (lambda t: {n: f * float("nan") for n, f in t.items()}, "not finite and above 0"),
    "type": (lambda t: {n: f.double() for n, f in t.items()}, "of type F64"),
    "empty": (lambda t: b"", "cannot be read"),
    "header": (lambda t: bytes([8]) + bytes(7) + b"{" * 8, "cannot be read"),
}


@only_int8
@pytest.mark.parametrize("case", SPOILT)
def test_factors_of_strangers_are_refused(bundle, tmp_path, monkeypatch, case):
    spoil, text = SPOILT[case]
    spoilt, right = spoil(load_file(bundle.file(FACTORS))), Bundle.file
    file = tmp_path / "factors.safetensors"
    if isinstance(spoilt, bytes):
        file.write_bytes(spoilt)
    else:
        save_file(spoilt, file)
    monkeypatch.setattr(Bundle, "file", lambda b, n: file if n == FACTORS else right(b, n))
    with pytest.raises(LuvcError, match=rf"factors\.safetensors.*{text}.*export it anew"):
        codes_of(bundle, torch.float32, LAYERS)


@only_int8
def test_factors_that_products_do_not_undo_are_noticed(bundle, checkpoint, tmp_path, monkeypatch):
    """A stranger's norm is the checkpoint's, divided by what the file says, and the model another."""
    monkeypatch.setattr(stored, "SAMPLE", 10_000)  # all of them
    changed = Bundle.load(shutil.copytree(bundle.path, tmp_path / "changed"))
    torch.manual_seed(0)
    more = torch.exp(torch.randn(len(factors_of(bundle)[FIRST_NORM])) * 3)
    weights = load_file(bundle.file(WEIGHTS))
    save_file(weights | {NORM: weights[NORM] / more}, changed.file(WEIGHTS))
    tensors = load_file(bundle.file(FACTORS))
    place = next(name for name in tensors if name.split()[0] == FIRST_NORM)
    save_file(tensors | {place: tensors[place] * more}, changed.file(FACTORS))
    codes = codes_of(changed, torch.float32, LAYERS)
    torch.testing.assert_close(codes.factors.numbers[NORM] * more, weights[NORM], rtol=1e-6, atol=0)
    with pytest.raises(LuvcError, match=r"layers\.0\..*codes was loaded with other values"):
        stored.check_stored(Family.load(str(checkpoint)), changed.file(WEIGHTS), codes)


@only_int8
def test_a_bundle_without_its_factors_is_refused(bundle, checkpoint, monkeypatch):
    monkeypatch.setattr(stored, "SAMPLE", 10_000)
    files = {name: file for name, file in bundle.manifest.files.items() if name != FACTORS}
    without = replace(bundle, manifest=bundle.manifest.model_copy(update={"files": files}))
    with pytest.raises(LuvcError, match=r"norm\.weight was loaded with other values"):
        reference_runner(without, str(checkpoint))


def test_what_a_score_reads_of_the_layer_behind_stays(checkpoint, data, tmp_path):
    """TransPrune looks at what attention and MLP of that layer are given."""
    options = {"reference_text": 8, "text_capacity": 96} | FEW_LAYERS["transprune"]
    options |= {"method": "transprune", "weights": "int8", "calibrate": data}
    config = ExportConfig.make(model=str(checkpoint), output=tmp_path / "bundle", **options)
    p = prepare(config)
    (folder := tmp_path / "codes").mkdir()
    codes = calibrate(config, p.family, p.layouts, p.questions, folder, lambda step: None)
    read = {i - 1 for i in p.layouts[0].schedule.scored}
    divided = {int(n.split(".")[3]) for n in codes.factors.sources if n.endswith("norm")}
    assert read and divided and not read & divided


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"calibrate": "x"}, "--calibrate x is for --weights int8 or int4"),
        ({"weights": "int8", "calibrate_limit": 4}, "--calibrate-limit 4 is of --calibrate"),
        ({"weights": "int8", "calibrate": "x", "calibrate_limit": 0}, "--calibrate-limit"),
    ],
)
def test_options_that_say_nothing(options, text):
    with pytest.raises(LuvcError, match=text):
        ExportConfig.make(model="x", **options)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("", "holds no questions"),
        ('{"images": [], "question": "Why?"}', "has 0 pictures, and the bundle's layouts take 1"),
        ('{"question": "Why?"}', "line 1: .*needs 'image' or 'images'"),
        ('{"question": "Why?", "image": "a.png", "images": []}', "both 'image' and 'images'"),
        ('{"question": "Why?", "images": [], "video": "a.mp4"}', "videos are not read here"),
        ('{"question": "Why?", "images": [], "answer": []}', "an empty list of answers"),
    ],
)
def test_questions_that_cannot_be_asked(checkpoint, tmp_path, line, text):
    file = tmp_path / "q.jsonl"
    file.write_text(line)
    options = {"weights": "int4", "group_size": 64, "calibrate": file} | SMALL
    with pytest.raises(LuvcError, match=text):
        export(ExportConfig.make(model=str(checkpoint), output=tmp_path / "b", **options))
    assert [p.name for p in tmp_path.iterdir()] == ["q.jsonl"]


def test_weights_that_make_no_numbers_leave_nothing(checkpoint, data, tmp_path, monkeypatch):
    from luvc.exporter.check import calibration

    def broken(family):
        model = load_model(family)
        norm = model.model.language_model.layers[1].input_layernorm
        norm.weight = torch.nn.Parameter(norm.weight.detach() * float("nan"))
        return model

    monkeypatch.setattr(calibration, "load_model", broken)
    options = {"weights": "int4", "group_size": 64, "calibrate": data} | SMALL
    with pytest.raises(LuvcError, match=r"layers.1.self_attn.* NaN or infinite"):
        export(ExportConfig.make(model=str(checkpoint), output=tmp_path / "b", **options))
    assert not list(tmp_path.iterdir())
