"""Exported bundles against PyTorch and against the unmodified Hugging Face model."""

import json
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from luvc.engines import Bundle
from luvc.engines.backends.base import PrefillResult
from luvc.engines.backends.ort.backend import ort
from luvc.engines.bundle.schedule import ENERGY
from luvc.engines.bundle.tensors import StageResult
from luvc.engines.prompt.processing import Processor
from luvc.engines.sampling import Sampling
from luvc.engines.tolerance import TOLERANCES
from luvc.engines.validate import _compare_kept, validate
from luvc.exporter import assemble
from luvc.exporter.check.parity import reference_runner, reports
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.checkpoint.weights import load_model
from luvc.exporter.report import validation_table
from luvc.plugins.contract import DOMAIN
from luvc.plugins.operators import OPERATORS

from ...conftest import CASES, ask

FP32 = [n for n, c in CASES.items() if not {"dtype", "check", "weights"} & set(c.options)]


@pytest.mark.parametrize("case", FP32)
def test_fp32_bundle_equals_pytorch(workshop, case):
    bundle = workshop.bundle(case)
    found = {report.layout: report for report in reports(bundle)}
    assert len(found) == len(bundle.manifest.layouts) and bundle.manifest.validated
    for layout in bundle.manifest.layouts:
        report = found[layout.name]
        assert report.passed
        assert max(s.relative_error for s in report.stages) <= 1e-4
        assert all(k.overlap_without_ties == 1.0 for k in report.kept)
        assert bool(report.kept) == bool(layout.schedule.scored)
        assert report.greedy_equal == report.greedy_tokens == 64  # two rows of 32
        names = [s.name for s in report.stages]
        assert (names[0] == "vision") == bool(layout.images) and names[-1] == "logits"
        seen = [s.visual for s in report.stages if s.name not in ("vision", "logits")]
        assert seen == [s.visual for s in layout.stages]


@pytest.mark.parametrize("case", ["qwen2-fp16", "qwen2-defaults-fp16"])
def test_fp16_weights(workshop, case):
    (report,) = reports(workshop.bundle(case))
    assert report.passed
    assert all(k.overlap_without_ties >= 0.99 for k in report.kept)
    assert max(s.relative_error for s in report.stages) <= 5e-2


@pytest.mark.parametrize(
    "case",
    ["qwen2", "qwen3-128-untied-tiles", pytest.param("llama-untied", marks=pytest.mark.slow)],
)
def test_ratio_1_equals_unmodified_hugging_face(workshop, picture, case):
    """The whole path: processor, prompt expansion, vision, prefill, 32 greedy tokens."""
    from transformers import AutoModelForImageTextToText

    vlm = workshop.vlm(case, 1.0)
    messages = ask("What colour is the largest shape?", picture)
    answer = vlm.generate(messages, max_new_tokens=32)
    prompt = vlm.processor.prompt(messages)
    name = vlm.manifest.model
    model: Any = AutoModelForImageTextToText.from_pretrained(name, dtype=torch.float32)
    with torch.no_grad():
        wanted = model.generate(
            input_ids=torch.tensor([prompt.input_ids]),
            attention_mask=torch.ones(1, len(prompt.input_ids), dtype=torch.long),
            pixel_values=torch.from_numpy(vlm.processor.pixels(prompt)),
            max_new_tokens=32,
            do_sample=False,
        )[0, len(prompt.input_ids) :]
    assert answer.token_ids == wanted.tolist()
    assert answer.stages == {}


def test_prompt_and_pixels_equal_hugging_faces_processor(workshop, picture, monkeypatch):
    """InternVLProcessor itself, on its own prompt expansion; it insists on a video processor."""
    import transformers
    from transformers import AutoImageProcessor, AutoTokenizer, InternVLProcessor

    vlm = workshop.vlm("qwen2", 1.0)
    source = vlm.manifest.model
    monkeypatch.setattr(
        transformers.processing_utils.transformers_module,
        "VideoProcessorMixin",
        type(None),
        raising=False,
    )
    processor: Any = InternVLProcessor(
        AutoImageProcessor.from_pretrained(source, backend="pil"),
        AutoTokenizer.from_pretrained(source),
        None,
        image_seq_length=vlm.manifest.layouts[0].visual_tokens,
    )
    messages = ask("What colour is the largest shape?", picture)
    prompt = vlm.processor.prompt(messages)
    bare = [{"role": "user", "content": [{"type": "image"}, messages[0]["content"][1]]}]
    text = processor.tokenizer.apply_chat_template(bare, tokenize=False, add_generation_prompt=True)
    wanted = processor(images=[picture], text=[text], return_tensors="np", crop_to_patches=False)
    assert wanted["input_ids"][0].tolist() == prompt.input_ids
    np.testing.assert_array_equal(wanted["pixel_values"], vlm.processor.pixels(prompt))


@pytest.mark.parametrize("case", ["qwen2", "qwen3-128-untied-tiles", "qwen2-two-images"])
def test_counts_equal_the_manifest(workshop, picture, case):
    vlm = workshop.vlm(case)
    layout = vlm.manifest.layouts[0]
    images = [picture, picture[::-1].copy()][: layout.images]
    answer = vlm.generate(ask("Compare.", *images), max_new_tokens=2)
    prompt = vlm.processor.prompt(ask("Compare.", *images))
    image = vlm.manifest.language.image_token_id
    assert answer.visual_tokens == layout.visual_tokens == prompt.input_ids.count(image)
    assert answer.prompt_tokens == len(prompt.input_ids) - layout.visual_tokens
    visual = layout.schedule.visual_per_layer(4, layout.visual_tokens)
    assert answer.stages == {p.layer: visual[p.layer] for p in layout.schedule.language}
    assert list(answer.stages.values())[-1] == 0
    assert layout.visual_tokens < layout.baseline_visual_tokens


@pytest.mark.parametrize("case", ["qwen2", "qwen3-128-untied-tiles", "qwen2-fp16"])
def test_graphs_are_valid_and_share_one_weights_file(workshop, case, tmp_path):
    # a copy: the checker refuses weights with several names, which luvc-triton's tests give them
    bundle = Bundle.load(shutil.copytree(workshop.bundle(case).path, tmp_path / "bundle"))
    layout = bundle.manifest.layouts[0]
    shared = []
    for path in layout.graphs.files:
        onnx.checker.check_model(str(bundle.file(path)), full_check=True)
        model = onnx.load(bundle.file(path), load_external_data=False)
        external = {
            t.name: {e.key: e.value for e in t.external_data}
            for t in model.graph.initializer
            if t.data_location == onnx.TensorProto.EXTERNAL
        }
        assert {e["location"] for e in external.values()} == {"weights.safetensors"}
        inside = [t for t in model.graph.initializer if t.name not in external]
        assert sum(len(t.raw_data) for t in inside) < 200_000
        shared.append({n for n in external if "language_model" in n})
    assert shared[1] == shared[2] and shared[1]


@pytest.mark.parametrize("case", ["llama-untied", "qwen2"])
def test_weights_keep_the_models_names(workshop, case):
    from safetensors import safe_open
    from transformers import AutoModelForImageTextToText

    bundle = workshop.bundle(case)
    model = AutoModelForImageTextToText.from_pretrained(bundle.manifest.model, dtype=torch.float32)
    wanted = dict(model.named_parameters())  # tied weights once
    with safe_open(str(bundle.file("onnx/weights.safetensors")), "pt") as ours:
        names = set(ours.keys())
        assert names == set(wanted)
        for name in names:
            assert torch.equal(ours.get_tensor(name), wanted[name]), name


def test_spu_nodes_name_their_plugin(workshop):
    bundle = workshop.bundle("qwen2")
    layout = bundle.manifest.layouts[0]
    model = onnx.load(bundle.file(layout.graphs.prefill), load_external_data=False)
    nodes = [n for n in model.graph.node if n.domain == DOMAIN]
    scored = sum(1 for p in layout.schedule.language if p.keep)
    counts = {o.name: sum(n.op_type == o.name for n in nodes) for o in OPERATORS}
    assert counts == {
        "SpectrumScore": scored,
        "SpectrumSelect": scored,
        "GatherTokens": len(layout.schedule.language),
    }
    for node in nodes:
        values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert values["plugin_namespace"] == b"luvc" and values["plugin_version"] == b"1"
        assert values["aot"] == 1
        operator = next(o for o in OPERATORS if o.name == node.op_type)
        assert [a for a in values if a in operator.attributes] == list(operator.attributes)
    assert {f.name for f in model.functions} == {o.name for o in OPERATORS}


def test_without_a_filter_there_is_nothing_to_transform(workshop):
    bundle = workshop.bundle("qwen2-energy")
    layout = bundle.manifest.layouts[0]
    assert layout.schedule.score == ENERGY and not layout.schedule.vision
    model = onnx.load(bundle.file(layout.graphs.prefill), load_external_data=False)
    operators = {n.op_type for n in model.graph.node if n.domain == DOMAIN}
    assert operators == {"SpectrumSelect", "GatherTokens"} == {f.name for f in model.functions}


def validated(bundle, runner):
    """What the validator says of a runner of this bundle."""
    m = bundle.manifest
    reference = reference_runner(bundle)
    return validate(m, Processor(bundle), m.layouts[0], reference, runner, "ort")


def test_scores_that_tell_nothing_are_told(workshop):
    """Behind a norm whose weights are all equal every token has the same energy."""
    (report,) = reports(workshop.bundle("qwen2-defaults"))
    said = "score alike"
    assert said not in "".join(map(str, validation_table(report)))
    energies = np.ones((2, 36), np.float32) * (1 + 1e-6 * np.arange(36, dtype=np.float32))
    stage = StageResult(energies=energies, kept=np.tile(np.arange(9), (2, 1)))
    result = PrefillResult(np.zeros((2, 1), np.float32), {1: stage})
    (kept,) = _compare_kept(result, result, TOLERANCES["float32"])
    assert kept.alike == 1 and kept.passed
    flat = report.model_copy(update={"kept": (kept,)})
    assert "before layer 1 100% of the tokens score alike" in "".join(
        map(str, validation_table(flat))
    )


def test_validation_fails_when_a_weight_is_changed(workshop, tmp_path):
    """The validator must be able to fail: one changed weight in the bundle."""
    bundle = workshop.bundle("qwen2")
    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    weights = copy / "onnx" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    name = "model.language_model.layers.1.mlp.down_proj.weight"
    start, end = header[name]["data_offsets"]
    offset = 8 + int.from_bytes(data[:8], "little")
    values = np.frombuffer(data[offset + start : offset + end], np.float32) * 1.01
    data[offset + start : offset + end] = values.astype(np.float32).tobytes()
    weights.write_bytes(data)
    changed = Bundle.load(copy)
    report = validated(changed, ort.runner(changed))
    assert not report.passed
    assert any(line.startswith("layers 2") for line in report.failures())
    assert next(s for s in report.stages if s.name.startswith("layers 1")).passed


def test_validation_fails_when_steps_give_other_tokens(workshop, monkeypatch):
    bundle = workshop.bundle("qwen2")
    runner = ort.runner(bundle)
    step = runner.step
    monkeypatch.setattr(runner, "step", lambda *feed: np.roll(step(*feed), 1, -1))
    report = validated(bundle, runner)
    assert not report.passed
    # the prefill gives the first token of both rows
    assert report.failures() == ["greedy tokens: 2 of 64 equal"]


def test_validation_fails_when_another_token_is_kept(workshop, monkeypatch):
    """The worst token of a stage in the place of its best, in every row."""
    bundle = workshop.bundle("qwen2")
    runner, first = ort.runner(bundle), bundle.manifest.layouts[0].schedule.language[0]
    assert first.keep > 1, "a single one would stand at the threshold, where differences are ties"
    prefill = runner.prefill

    def swapped(*feed):
        result = prefill(*feed)
        stage = result.stages[first.layer]
        kept = stage.kept.copy()
        for row, energies in zip(kept, stage.energies, strict=True):
            row[energies[row].argmax()] = energies.argmin()
            row.sort()
        return replace(result, stages=result.stages | {first.layer: replace(stage, kept=kept)})

    monkeypatch.setattr(runner, "prefill", swapped)
    report = validated(bundle, runner)
    assert not report.passed
    compared = next(k for k in report.kept if k.layer == first.layer)
    assert compared.overlap == pytest.approx(1 - 1 / first.keep)
    assert any(f.startswith(f"SPU before layer {first.layer}: ") for f in report.failures())


@pytest.mark.parametrize("left", [None, {"do_sample": False}])
def test_what_ends_a_text_ends_an_answer_where_a_checkpoint_does_not_say(workshop, tmp_path, left):
    """Without generation_config.json, or without the id in it: the text config's, not the tokenizer's."""
    source = shutil.copytree(workshop.checkpoint(**CASES["qwen2"].shape), tmp_path / "checkpoint")
    file = source / "generation_config.json"
    file.unlink()
    if left is not None:
        file.write_text(json.dumps(left))
    config = json.loads((source / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 5
    (source / "config.json").write_text(json.dumps(config))
    family = Family.load(str(source))
    assert family.tokenizer.eos_token_id != 5
    assemble.write_processor(family, load_model(family), tmp_path / "processor")
    written = json.loads((tmp_path / "processor" / "generation_config.json").read_text())
    assert Sampling.from_generation_config(written).eos_token_id == (5,)
