"""The headline's code on tiny models and the CPU: equal to Hugging Face and to the product's runner."""

import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend

from benchmarks.gpu import case, fused, headline, shapes, timing
from luvc.engines.backends.base import PrefillFeed, StepFeed
from luvc.exporter.check.torch_runner import TorchRunner
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.planning.defaults import DEFAULTS, PAPER

from ..families import checkpoints

pytestmark = pytest.mark.xdist_group("gpu-headline")  # they share their checkpoints
CPU = torch.device("cpu")
SIZES = {"internvl": (168, 504), "qwen2_5_vl": (280, 392)}


@pytest.fixture(scope="module")
def families(workshop, tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    checkpoints.write("qwen2_5_vl", folder)
    file = folder / "preprocessor_config.json"
    values = json.loads(file.read_text())
    values["size"]["longest_edge"] = 10**6  # the tests' own limit is a very small picture
    file.write_text(json.dumps(values))
    tiny = workshop.checkpoint(layers=4, vision_layers=2, image=168)
    return {"internvl": Family.load(str(tiny)), "qwen2_5_vl": Family.load(str(folder))}


@pytest.fixture
def runner(families):
    family = families["internvl"]
    model = shapes.random_model(family, CPU, torch.float32)
    return TorchRunner(model, family, shapes.TEXT + headline.ROOM)


@pytest.mark.parametrize("name", SIZES)
def test_a_model_is_measured(families, name, tmp_path):
    target, report = tmp_path / "headline.json", {"command": "test"}
    batches = [1, 2] if name == "internvl" else [2]
    options = PAPER if name == "internvl" else DEFAULTS
    plan = headline.Plan([SIZES[name]], batches, [1, 2], seconds=0.05, options=options)
    headline.measure(families[name], plan, CPU, torch.float32, report, target)
    written = json.loads(target.read_text())
    assert [c["batch"] for c in written["cases"]] == batches
    for found in written["cases"]:
        assert "error" not in found, found["error"]
        assert found["same_token"] and found["logits_error"] < 1e-4
        one, two = found["ratios"]["1"], found["ratios"]["2"]
        assert one["visual_tokens"] == [found["visual"]] and two["visual_tokens"][-1] == 0
        assert 2 <= two["flops"]["prefill"] <= 2.04
        for ratio in (one, two):
            assert ratio["kv_bytes"] == ratio["kv_plan_bytes"] > ratio["kv_prompt_bytes"]
            assert ratio["run_as"]["prefill"] == "eager"  # no CUDA graphs here
            for part in ("vision_ms", "prefill_ms", "first_token_ms", "decode_ms"):
                assert 0 < ratio[part]["min"] <= ratio[part]["median"]
        assert "spu_ms" in two and "spu_ms" not in one
        assert {"luvc", "hf"} == found["eager"].keys()
        assert found["hf_kv_bytes"] == one["kv_prompt_bytes"] > two["kv_prompt_bytes"]


@pytest.mark.parametrize("name", SIZES)
def test_the_timed_calls_are_the_products_answers(families, name):
    """Vision, prefill and one more token, against the runner that bundles are validated with."""
    family = families[name]
    model = shapes.random_model(family, CPU, torch.float32)
    runner = TorchRunner(model, family, shapes.TEXT + 32)
    layouts = shapes.layouts(family, SIZES[name], [1, 2], PAPER)
    measured = case.Case(runner, layouts, 2, {})
    product, layout = measured.products["2"], layouts["2"]
    measured.load(product, 1)
    product.vision()
    logits, after = product.prefill(), product.decode()
    p = shapes.Prompts.make(family, layout, 2, CPU, 1)
    assert torch.equal(p.input_ids, product.prompts.input_ids)
    embeds = runner.vision(layout, measured._pixels[1].numpy()).reshape(product.embeds.shape)
    caches = runner.new_caches(layout, 2)
    fields = {k: v.numpy() for k, v in vars(p).items() if k != "next_position"}
    wanted = runner.prefill(layout, PrefillFeed(visual_embeds=embeds, **fields), caches)
    np.testing.assert_allclose(logits[:, 0].numpy(), wanted.logits, atol=1e-5)
    feed = StepFeed(
        product._token.numpy(), p.next_position.numpy(), np.full(2, shapes.TEXT), np.zeros(2, int)
    )
    np.testing.assert_allclose(after[:, 0].numpy(), runner.step(layout, feed, caches), atol=1e-5)
    # a token that is decoded again gives the same logits, so that decoding can be repeated
    assert torch.equal(product.decode(), after)


def test_random_models_have_spread_weights(families):
    model = shapes.random_model(families["internvl"], CPU, torch.bfloat16)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert all(0.005 < float(p.detach().float().std()) < 0.2 for p in matrices)
    rotary = model.model.language_model.rotary_emb.inv_freq
    assert rotary.dtype == torch.float32 and rotary.device == CPU


@pytest.mark.parametrize("model", shapes.SIZES)
def test_published_sizes_have_the_visual_tokens(model, tmp_path):
    family = shapes.published_family(model, tmp_path)
    for visual, size in shapes.SIZES[model].items():
        layouts = shapes.layouts(family, size, [1, 2, 3, 4])
        assert layouts["1"].visual_tokens == visual
        assert all(x.ratios.prefill >= float(r) for r, x in layouts.items())
        prompts = shapes.Prompts.make(family, layouts["2"], 1, CPU, 0)
        image = family.language.image_token_id
        assert int((prompts.input_ids == image).sum()) == layouts["2"].visual_tokens
        assert prompts.input_ids.shape[1] == layouts["2"].visual_tokens + shapes.TEXT


def test_a_failing_case_is_recorded(families, runner, monkeypatch):
    layouts = shapes.layouts(families["internvl"], SIZES["internvl"], [1, 2])

    def full(self, seconds):
        raise RuntimeError("CUDA out of memory\nand more")

    monkeypatch.setattr(case.Case, "measure", full)
    plan, saved = headline.Plan([], [1], [1, 2]), []
    found = headline.measure_case(runner, layouts, 1, {}, plan, saved.append)
    assert not saved
    assert found["error"] == "RuntimeError: CUDA out of memory"
    assert headline.in_one_line(found) == found["error"]


def test_a_case_is_written_before_it_is_compared(families, monkeypatch, tmp_path):
    def interrupted(self, seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(case.Case, "measure", lambda self, seconds: {"1": {"visual_tokens": [9]}})
    monkeypatch.setattr(case.Case, "compare", interrupted)
    plan = headline.Plan([SIZES["internvl"]], [1], [1])
    target = tmp_path / "headline.json"
    with pytest.raises(KeyboardInterrupt):
        headline.measure(families["internvl"], plan, CPU, torch.float32, {}, target)
    (written,) = json.loads(target.read_text())["cases"]
    assert written["batch"] == 1 and written["ratios"] == {"1": {"visual_tokens": [9]}}


def test_large_batches_are_not_compared(families, runner, monkeypatch):
    layouts = shapes.layouts(families["internvl"], SIZES["internvl"], [1])
    monkeypatch.setattr(case.Case, "measure", lambda self, seconds: {})
    monkeypatch.setattr(case.Case, "compare", lambda self, seconds: {"eager": seconds})
    plan = headline.Plan([], [1, 2], [1], compare_up_to=1)
    one, two = (
        headline.measure_case(runner, layouts, batch, {}, plan, lambda found: None)
        for batch in plan.batches
    )
    assert one["eager"] == plan.seconds / 2 and "not_compared" not in one
    assert "eager" not in two and "only batches up to 1" in two["not_compared"]


def test_what_is_tried_again_and_solved_again(families, monkeypatch, tmp_path):
    """A case only with other kernels and without ratios; a schedule never."""
    tried = []
    solved = []
    real = shapes.layouts

    def layouts(*arguments):
        solved.append(arguments)
        return real(*arguments)

    def fails(runner, layouts, batch, choices, plan, save):
        tried.append((batch, list(choices)))
        choices["prefill"] = fused.Choice("flash")
        measured = {"ratios": {"1": {"prefill_ms": {"median": 1.0}}}} if batch == 3 else {}
        return {"visual": 9, "batch": batch, "error": "RuntimeError: refused"} | measured

    monkeypatch.setattr(shapes, "layouts", layouts)
    monkeypatch.setattr(headline, "measure_case", fails)
    plan = headline.Plan([SIZES["internvl"]], [1, 2, 3], [1])
    target = tmp_path / "headline.json"
    headline.measure(families["internvl"], plan, CPU, torch.float32, {}, target)
    assert tried == [(1, []), (2, ["prefill"]), (2, []), (3, ["prefill"])]
    assert len(solved) == 1
    assert [c["batch"] for c in json.loads(target.read_text())["cases"]] == [1, 2, 3]


def test_a_kernel_is_chosen_that_runs_all_ratios(families, runner, monkeypatch):
    """And Hugging Face can decode where only the kernel for decoding is still to be chosen."""
    layouts = shapes.layouts(families["internvl"], SIZES["internvl"], [1, 2])
    known = {name: fused.Choice() for name in (*case.PARTS, "hf vision", "hf prefill")}
    measured = case.Case(runner, layouts, 1, known)
    measured._cuda = True

    def choose(work, clock):
        work()
        return fused.Choice()

    monkeypatch.setattr(case, "choose", choose)
    assert measured.compare(0.05)["same_token"] and "hf decode" in known
    ran = []
    sides = [
        SimpleNamespace(**{part: partial(ran.append, (part, side)) for part in case.PARTS})
        for side in "ab"
    ]
    known.clear()
    measured.choose(sides)
    assert ran == [(part, side) for part in case.PARTS for side in "ab"]


def test_the_fastest_kernel_that_runs_is_chosen():
    class Slow:
        """Milliseconds by the kernel that is allowed."""

        def __init__(self):
            self.device = CPU

        def __call__(self, work):
            return work()

        def wait(self):
            pass

    def work():
        from torch.backends import cuda

        if cuda.cudnn_sdp_enabled():
            raise RuntimeError("No available kernel. Aborting execution.\nmore")
        assert not cuda.math_sdp_enabled()
        return 1.0 if cuda.mem_efficient_sdp_enabled() else 2.0

    clock: Any = Slow()
    found = fused.choose(work, clock)
    assert found.name == "efficient" and found.ms == {"flash": 2.0, "efficient": 1.0}
    assert found.refused == {"cudnn": "No available kernel. Aborting execution."}
    with found.context():  # first of all fused ones
        assert torch._C._get_sdp_priority_order()[0] == SDPBackend.EFFICIENT_ATTENTION.value
        assert torch.backends.cuda.flash_sdp_enabled()
        assert not torch.backends.cuda.math_sdp_enabled()
    with pytest.raises(RuntimeError, match="no fused attention kernel"):
        fused.choose(work, clock, ["cudnn"])


def test_systems_are_interleaved():
    order = []

    def system(name):
        return lambda n: (order.append((n, name)), {"part": float(n)})[1]

    found = timing.side_by_side({"a": system("a"), "b": system("b"), "c": system("c")}, 3)
    assert [name for _, name in order] == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert found["b"]["part"]["median"] == 1 and found["b"]["part"]["samples"] == [0, 1, 2]
    assert timing.rounds_for(10, 1000) == 10 and timing.rounds_for(1, 1000) == 3
