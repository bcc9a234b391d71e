"""A bundle of several ratios: what it holds, and which one a request gets."""

import contextlib
import math
from typing import Any

import numpy as np
import pytest

from luvc.engines import VLM
from luvc.engines.bundle.folder import WEIGHTS
from luvc.engines.prompt.wishes import Wish
from luvc.engines.serving.limits import Limits
from luvc.engines.serving.scheduler import Scheduler
from luvc.errors import LuvcError
from luvc.exporter import ExportConfig, plan
from luvc.exporter.check.parity import reports
from luvc.tools.bench.measured import pick_layouts
from luvc.tools.eval.answering import askable, batches, load, of_ratio
from luvc.tools.eval.items import Item

from ..conftest import TINY, ask

pytestmark = pytest.mark.xdist_group("ratios")  # they share what takes long to export
RATIOS = (1.5, 1.0, 2.5)  # as qwen2-ratios was exported for


@pytest.fixture(scope="module")
def bundle(workshop):
    return workshop.bundle("qwen2-ratios")


@pytest.fixture(scope="module")
def vlm(bundle):
    with VLM.load(bundle.path, threads=1) as vlm:
        yield vlm


def test_it_holds_one_model(bundle, workshop):
    """One weights file, one tower, three prompts' graphs; at most 3 % more than one ratio takes."""
    files = bundle.manifest.files
    assert [name for name in files if name.endswith(".safetensors")] == [WEIGHTS]
    assert len({layout.graphs.vision for layout in bundle.manifest.pictured}) == 1
    assert sum("vision-" in name for name in files) == 1
    assert len({layout.graphs.prefill for layout in bundle.manifest.pictured}) == len(RATIOS)
    alone = workshop.bundle("qwen2-text").manifest.files
    one, three = (sum(f.bytes for f in x.values()) for x in (alone, files))
    assert three <= 1.03 * one


def test_every_ratio_was_compared_with_pytorch(bundle):
    found = {report.layout: report for report in reports(bundle)}
    assert set(found) == {"168x168-1.5x", "168x168-1x", "168x168-2.5x", "text"}
    assert all(report.passed for report in found.values())
    assert found["168x168-2.5x"].kept
    assert not found["168x168-1x"].kept


def test_towers_that_merge_differently_are_not_shared(workshop, tmp_path):
    model = str(workshop.checkpoint(**TINY, text="qwen2"))
    config = ExportConfig.make(
        model=model, ratios=(1.5, 2.5), oim_share=0.5, reference_text=8, text_capacity=96
    )
    one, two = plan(config)
    assert one.schedule.vision != two.schedule.vision
    assert one.graphs.vision != two.graphs.vision


def test_a_request_gets_its_ratio(vlm, picture):
    """Each is the layout that a bundle of that ratio alone would have."""
    found = {r: vlm.generate(ask("Why?", picture), ratio=r, max_new_tokens=4) for r in RATIOS}
    assert {r: answer.ratio for r, answer in found.items()} == {r: r for r in RATIOS}
    assert not any("ratio" in note for answer in found.values() for note in answer.notes)
    kept = [min(found[r].stages.values(), default=36) for r in (1.0, 1.5, 2.5)]
    assert kept == sorted(kept, reverse=True)
    usual = vlm.generate(ask("Why?", picture), max_new_tokens=4)
    assert usual.ratio == RATIOS[0]
    assert usual.token_ids == found[RATIOS[0]].token_ids


def test_ratio_one_answers_as_its_own_bundle(vlm, workshop, picture):
    with workshop.vlm("qwen2", 1) as alone:
        wanted = alone.generate(ask("Why?", picture), max_new_tokens=8, temperature=0)
    found = vlm.generate(ask("Why?", picture), ratio=1, max_new_tokens=8, temperature=0)
    assert found.token_ids == wanted.token_ids


@pytest.mark.parametrize(("asked", "taken"), [(2, 2.5), (1.9, 1.5), (1.1, 1), (100, 2.5)])
def test_the_nearest_ratio_is_taken_and_said(vlm, picture, asked, taken):
    """Nearest as a factor: 2 is a quarter below 2.5 and a third above 1.5."""
    found = vlm.processor.prompt(ask("Why?", picture), Wish(ratio=asked))
    assert found.layout.ratio == taken
    said = f"ratio {asked:g}x was asked for, {taken:g}x is the nearest of the bundle"
    assert said in found.notes


def test_image_tokens_bound_the_mean_of_the_layers(bundle, vlm, picture):
    """Of what fits, most is taken; below the smallest it is refused, and that is named."""
    means = {}
    for layout in bundle.manifest.pictured:
        layers = bundle.manifest.language.layers
        means[layout.ratio] = np.mean(layout.schedule.visual_per_layer(layers, 36))
    least = math.ceil(means[2.5])
    for ratio, mean in means.items():
        found = vlm.generate(ask("Why?", picture), image_tokens=math.ceil(mean), max_new_tokens=1)
        assert found.ratio == ratio
    between = vlm.generate(ask("Why?", picture), image_tokens=35, max_new_tokens=1)
    assert between.ratio == 1.5
    with pytest.raises(LuvcError, match=rf"the smallest is {least}, of layout 168x168-2.5x"):
        vlm.generate(ask("Why?", picture), image_tokens=least - 1)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"ratio": 0.5}, "ratio 0.5 is no number of at least 1"),
        ({"ratio": math.nan}, "ratio nan is no number"),
        ({"ratio": "2x"}, "ratio '2x' is no number"),
        ({"ratio": True}, "ratio True is no number"),
        ({"image_tokens": 0}, "image_tokens 0 is no whole number above 0"),
        ({"image_tokens": 8.5}, "image_tokens 8.5 is no whole number"),
        ({"ratio": 2, "layout": "168x168-1x"}, "layout and ratio choose the layout: give one"),
        ({"ratio": 2, "image_tokens": 9}, "ratio and image_tokens choose the layout"),
        ({"layout": 7}, "a layout is chosen by its name, got int"),
    ],
)
def test_wrong_wishes_are_refused(vlm, picture, wish, said):
    with pytest.raises(LuvcError, match=said):
        vlm.generate(ask("Why?", picture), **wish)


def test_without_a_picture_a_ratio_means_nothing(vlm):
    found = vlm.generate(ask("Why?"), ratio=2.5, max_new_tokens=1)
    assert found.layout == "text"
    assert any("nothing to compress" in note for note in found.notes)


def test_a_chat_keeps_its_ratio(vlm, picture):
    chat = vlm.chat(ratio=2.5, max_new_tokens=3)
    first, second = chat.ask("Why?", [picture]), chat.ask("And why not?")
    assert (first.ratio, second.ratio) == (2.5, 2.5)
    assert second.reused_tokens


def test_a_batch_runs_at_its_ratio(vlm, picture):
    both = [ask("Why?", picture), ask("How many are there?", picture)]
    found = vlm.generate(both, ratio=2.5, max_new_tokens=3)
    assert [answer.ratio for answer in found] == [2.5, 2.5]


def test_an_evaluation_is_of_one_ratio(bundle):
    layouts, ratio = of_ratio(bundle, 2.5)
    assert ([x.name for x in layouts], ratio) == (["168x168-2.5x", "text"], 2.5)
    assert of_ratio(bundle, None)[1] == RATIOS[0]
    with pytest.raises(LuvcError, match=r"--ratio 3x is not in .*, which holds 1\.5x, 1x, 2\.5x"):
        of_ratio(bundle, 3)


@pytest.mark.parametrize("backend", ["ort", "torch"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_an_evaluation_answers_at_its_ratio(bundle, vlm, picture, ratio, backend):
    item = Item("0", "t", "Why?", (), (picture,))
    with contextlib.closing(load(bundle.path, backend, None, 4, 1, f"{ratio:g}x")) as answerer:
        (batch,) = batches(answerer, askable(answerer, [item]), 2)
        (found,) = answerer.answer(batch)
    assert batch.layout == f"168x168-{ratio:g}x"
    wanted = vlm.generate(ask("Why?", picture), ratio=ratio, max_new_tokens=4)
    assert list(found.tokens) == wanted.token_ids


def test_a_kept_conversation_keeps_its_ratio(vlm, picture):
    with contextlib.closing(Scheduler(vlm, Limits(rows=2))) as scheduler:
        for text in ("Why?", "And then?"):
            asked = ask(text, picture) if text == "Why?" else ask(text)
            ratio = 2.5 if text == "Why?" else None
            answer = scheduler.submit(asked, conversation="c", max_new_tokens=3, ratio=ratio).answer
            assert answer.ratio == 2.5
        other = scheduler.submit(ask("Why?"), conversation="c", ratio=1, max_new_tokens=3).answer
        assert other.ratio == 1


@pytest.mark.parametrize("field", ["ratio", "image_tokens"])
def test_numbers_that_no_float_holds_are_refused(field):
    asked: Any = {field: 10**400}
    with pytest.raises(LuvcError, match=field):
        Wish(**asked)


def test_a_benchmark_holds_ratios_of_one_bundle_beside_each_other(bundle, workshop):
    bundles = {"a": bundle, "b": workshop.bundle("qwen2", 1)}
    usual = pick_layouts(bundles, None, [], 8)
    assert {name: x.name for name, (_, x) in usual.items()} == {"a": "168x168-1.5x", "b": "168x168"}
    both = pick_layouts({"a": bundle}, None, [1, 2.5], 8)
    assert {name: x.ratio for name, (_, x) in both.items()} == {"a 1x": 1, "a 2.5x": 2.5}
    with pytest.raises(LuvcError, match=r"--ratio 2\.5x is not in b, which holds 1x"):
        pick_layouts(bundles, None, [2.5], 8)
