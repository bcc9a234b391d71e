"""Bundles of every family: ONNX Runtime against PyTorch, and answers from the files on disk."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from luvc.engines import VLM
from luvc.engines.decoding import Rows
from luvc.engines.serving import Limits, Scheduler
from luvc.exporter import export
from luvc.exporter.check.parity import reports
from luvc.exporter.vision.graph import VisionGraph

from . import reference
from .gallery import QUESTION, apart, bundled, exported, names, only_once, pictures, question


@pytest.mark.cell("ORT fp32")
@pytest.mark.parametrize("name", exported())
def test_a_compressed_bundle_is_pytorchs(gallery, name):
    bundle = gallery.bundle(name, "compressed")
    (report,) = reports(bundle)
    assert report.passed and report.greedy_equal == report.greedy_tokens == 64
    assert max(s.relative_error for s in report.stages) <= 1e-4
    assert report.kept and all(k.overlap == 1 for k in report.kept)


def assert_near(found, wanted):
    assert np.abs(found - wanted).max() <= 1e-3 * np.abs(wanted).max()


def assert_rows_are_alone(vlm, prompts):
    """Unequal prompts as one batch and unequal second turns on its caches, against each row on its own.

    On its own, a row's two turns are one prompt, without caches and padding, where a later turn cannot
    change what the first one holds.
    """
    turns = [
        vlm.processor.tokenizer(t, add_special_tokens=False)["input_ids"]
        for t in ("No", " And why is it so, since when?")
    ]
    assert len(turns[0]) < len(turns[1]) and len(prompts[0].input_ids) > len(prompts[1].input_ids)
    rows, first, _ = vlm.prefill(prompts)
    second = rows.step(turns)
    for i, (prompt, turn) in enumerate(zip(prompts, turns, strict=True)):
        alone, wanted, _ = vlm.prefill([prompt])
        assert_near(first.logits[i], wanted.logits[0])
        if vlm.manifest.language.whole_prompt:
            both = alone.step([turn])
        else:
            embeds, _ = vlm.embed([prompt])
            fresh = Rows(vlm.runner, vlm.manifest, prompt.layout, 1)
            both = fresh.prefill([[*prompt.input_ids, *turn]], embeds).logits
        assert_near(second[i], both[0])


@pytest.mark.parametrize("name", exported())
def test_a_compressed_bundle_answers(gallery, name):
    bundle = gallery.bundle(name, "compressed")
    (layout,) = bundle.manifest.layouts
    vlm = VLM.load(bundle.path, threads=1, verify=True)
    shown = pictures(layout.image_size, 1)
    prompt = vlm.processor.prompt(question(shown))
    said = json.loads((gallery.checkpoint(name) / "generation_config.json").read_text())
    assert set(vlm.sampling.eos_token_id) == set(np.atleast_1d(said["eos_token_id"]).tolist())
    assert prompt.input_ids.count(bundle.manifest.language.image_token_id) == layout.visual_tokens
    assert layout.visual_tokens < layout.baseline_visual_tokens or not layout.schedule.vision
    answer = vlm.generate(question(shown), max_new_tokens=16)
    assert len(answer.token_ids) == 16 or answer.finish_reason == "stop"
    assert answer.stages == {p.layer: p.keep for p in layout.schedule.language}
    batch = vlm.generate([question(shown), question(shown, "Why?")], max_new_tokens=16)
    assert batch[0].token_ids == answer.token_ids
    shorter = vlm.generate(question(shown, "Why?"), max_new_tokens=16)
    assert batch[1].token_ids == shorter.token_ids
    longer = question(shown, f"{QUESTION} And what is beside it?")
    assert_rows_are_alone(vlm, [vlm.processor.prompt(longer), prompt])
    chat = vlm.chat(max_new_tokens=4)
    turns = [chat.ask(QUESTION, shown), chat.ask("Why?")]
    limits = Limits(rows=2, prefill=2, prefix_mib=0)  # so that rows are taken again
    scheduler = Scheduler(vlm, limits)
    crowd = [scheduler.submit(question(shown), max_new_tokens=n) for n in (3, 16, 5, 9)]
    for ticket, length in zip(crowd, (3, 16, 5, 9), strict=True):
        assert ticket.answer.token_ids == answer.token_ids[:length]
    again = [question(shown), [{"role": "user", "content": "Why?"}]]
    for turn, own in zip(again, turns, strict=True):
        kept = scheduler.submit(turn, conversation="s", max_new_tokens=4).answer
        assert (kept.token_ids, kept.reused_tokens) == (own.token_ids, own.reused_tokens)
    scheduler.close()


@pytest.mark.parametrize("name", bundled())
def test_the_vision_graph_takes_another_batch_than_it_was_traced_with(gallery, name):
    bundle = gallery.bundle(name, "compressed")
    (layout,) = bundle.manifest.layouts
    vlm = VLM.load(bundle.path, threads=1)
    model = gallery.in_pytorch(name, ratio=1.5).runner.model
    tower = VisionGraph(model, gallery.family(name).adapter, layout)
    random = np.random.default_rng(0)
    for count in (1, 5):
        pixels = random.normal(size=(count, *layout.pixel_shape[1:])).astype(np.float32)
        with torch.no_grad():
            wanted = tower(torch.from_numpy(pixels)).numpy()
        found = vlm.runner.vision(layout, pixels)
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize(
    "name",
    [*names("qwen3_vl", "gemma3"), apart("llava_onevision", torchvision=False, slow=True)],
)
def test_a_bundle_of_ratio_one_answers_as_hugging_face(gallery, name):
    bundle = gallery.bundle(name, "plain")
    vlm = VLM.load(bundle.path, threads=1)
    shown = pictures(bundle.manifest.layouts[0].image_size, 1)
    model, proc = gallery.hugging_face(name)
    wanted = reference.generate(model, proc, shown, QUESTION, 16)
    assert vlm.generate(question(shown), max_new_tokens=16).token_ids == wanted


@pytest.mark.slow
@pytest.mark.xdist_group("family-qwen2_vl")
def test_sizes_share_the_weights_and_the_nearest_one_is_taken(gallery, tmp_path):
    """Pictures near two sizes of one bundle, against Hugging Face on the picture brought to that size."""
    sizes = ((112, 140), (168, 112))
    config = gallery.config(
        "qwen2_vl", output=tmp_path / "bundle", ratio=1, check=False, image_sizes=sizes
    )
    bundle = export(config, only_once, family=gallery.family("qwen2_vl"))
    assert len(list(bundle.path.rglob("*.safetensors"))) == 1
    vlm, (model, proc) = VLM.load(bundle.path, threads=1), gallery.hugging_face("qwen2_vl")
    for height, width in sizes:
        (shown,) = pictures((height + 9, width - 6), 1)
        prompt = vlm.processor.prompt(question([shown]))
        assert prompt.layout.image_size == (height, width)
        assert f"brought to {height}x{width}" in " ".join(prompt.notes)
        brought = shown.resize((width, height), Image.Resampling.BICUBIC)
        wanted = reference.generate(model, proc, [brought], QUESTION, 8)
        assert vlm.generate(question([shown]), max_new_tokens=8).token_ids == wanted
