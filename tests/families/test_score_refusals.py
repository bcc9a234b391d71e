"""Scores that a family cannot be asked for are refused by a plan, with what there is instead."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from luvc.engines.bundle.schedule import Merge, Prune, Schedule, ScoreSpec
from luvc.errors import LuvcError
from luvc.exporter import ExportConfig, plan
from luvc.exporter.layouts.score_fits import check_score
from luvc.exporter.planning.methods import METHODS, spec_of
from luvc.exporter.planning.schedule_file import read_schedule
from luvc.exporter.prepare import prepare
from luvc.plugins.scores.base import HEADS, TOWER
from luvc.plugins.scores.registry import OWN, make

from ..exporter.method_graphs import FEW_LAYERS
from .gallery import Gallery, names, size_of

LOOKING = [n for n, m in METHODS.items() if TOWER in m.score.reads]
ASKING = [n for n, m in METHODS.items() if HEADS in m.score.reads and TOWER not in m.score.reads]
SCORING = [n for n, m in METHODS.items() if m.options.smaller == "none"]
CHAINED = ["hiprune", "visionzip", "divprune", "todre", "mmtok", "visiondrop"]
SHORT = {"reference_text": 8, "text_capacity": 96}


def planned(gallery: Gallery, name: str, **options: Any):
    """The only layout of a plan."""
    size = size_of(name)
    sizes = {} if size is None else {"image_sizes": (size,)}
    model = str(gallery.checkpoint(name))
    config = ExportConfig.make(model=model, **(SHORT | sizes | {"ratio": 1.3} | options))
    return plan(config, gallery.family(name))[0]


def test_which_methods_read_what():
    assert set(LOOKING) == {
        "fastervlm", "vtc-cls", "fopru", "hiprune", "visionzip", "vflowopt", "visiondrop",
    }  # fmt: skip
    assert set(ASKING) == {"fastv", "pact", "k-norm"}


# ---- the language model
@pytest.mark.parametrize("method", [*ASKING, "visiondrop"])
def test_a_convolution_has_no_queries(gallery, method):
    """LFM2's kinds of layers, behind another family's tower."""
    layers = ("conv", "conv", "full", "conv", "full", "conv")
    family = gallery.family("internvl")
    mixed: Any = SimpleNamespace(
        traits=replace(family.traits, layer_types=layers),
        config=family.config,
        adapter=family.adapter,
        encoder=family.encoder,
    )
    score = spec_of(METHODS[method].score)
    good = Schedule(score=score, language=(Prune(layer=2, keep=20), Prune(layer=4, keep=10)))
    check_score(mixed, good)
    bad = good.model_copy(update={"language": (Prune(layer=3, keep=20),)})
    with pytest.raises(LuvcError, match=r"layer 3 of internvl is a convolution") as caught:
        check_score(mixed, bad)
    assert "attention is in layers 2, 4, so give some of --stages 0.417, 0.75" in str(caught.value)
    assert [int(6 * part) for part in (0.417, 0.75)] == [2, 4]
    first = good.model_copy(update={"language": (Prune(layer=0, keep=20),)})
    if TOWER in METHODS[method].score.reads:
        check_score(mixed, first)  # the tower was asked, not the layer
    else:
        with pytest.raises(LuvcError, match="layer 0 of internvl"):
            check_score(mixed, first)


@pytest.mark.parametrize("name", names("lfm2_vl"))
def test_stages_of_lfm2(gallery, name):
    if name == "lfm2_vl":
        with pytest.raises(LuvcError, match="layer 2 of lfm2_vl is a convolution"):
            planned(gallery, name, method="pact", stages=(0.5,))
    assert planned(gallery, name, method="pact", stages=(0.25,)).schedule.scored == [1]


# ---- the tower
@pytest.mark.parametrize("method", LOOKING)
def test_a_tower_that_merges_is_another_one(gallery, method):
    """Asked for beside the method, and in a schedule of one's own."""
    with pytest.raises(LuvcError, match=r"leave OIM out \(--oim-share 0"):
        planned(gallery, "internvl", method=method, oim_share=0.9, ratio=2)
    schedule = Schedule(
        score=spec_of(METHODS[method].score),
        vision=(Merge(layer=1, axis="width", group=2),),
        language=(Prune(layer=0, keep=6),),
    )
    model = str(gallery.checkpoint("internvl"))
    with pytest.raises(LuvcError, match="leave OIM out"):
        plan(ExportConfig.make(model=model, schedule=schedule, **SHORT), gallery.family("internvl"))


@pytest.mark.parametrize("name", ["llava_next", "llava_onevision"])
@pytest.mark.parametrize("method", LOOKING)
def test_packed_tiles_carry_no_scores(gallery, name, method):
    with pytest.raises(LuvcError, match="puts line ends between its visual tokens") as caught:
        planned(gallery, name, method=method, scope="image")
    assert "random, uniform, divprune" in str(caught.value)
    others = str(caught.value).rpartition("such as ")[2].split(", ")
    assert not set(others) & set(LOOKING)
    assert planned(gallery, name, method=others[-1], scope="image").schedule.scored


@pytest.mark.parametrize("method", LOOKING)
def test_windows_are_no_attention_to_the_picture(gallery, method):
    """The tower has four layers, of which only layer 2 sees the whole picture."""
    narrow = [i for i in METHODS[method].score.layers(4) if i != 2]
    if not narrow:
        assert planned(gallery, "qwen2_5_vl", method=method).schedule.scored
        return
    with pytest.raises(LuvcError, match=r"only layers 2 of 4 see the whole picture") as caught:
        planned(gallery, "qwen2_5_vl", method=method)
    assert f"looks at layer {narrow[0]} of the vision tower" in str(caught.value)
    family = gallery.family("qwen2_5_vl")
    full: Any = SimpleNamespace(
        traits=family.traits,
        config=family.config,
        adapter=family.adapter,
        encoder=replace(family.encoder, full=(0, 1, 2, 3)),
    )
    score = spec_of(METHODS[method].score)
    check_score(full, Schedule(score=score, language=(Prune(layer=0, keep=8),)))


def test_hiprune_can_be_led_to_the_layers_of_qwen():
    """Qwen2.5-VL's tower: layers 7, 15, 23 and 31 of 32; the paper takes the 16th."""
    assert make("hiprune", {"middle": 0.5}).layers(32) == (15, 31)


@pytest.mark.parametrize("method", SCORING)
def test_every_method_has_a_plan_beside_questions_without_pictures(gallery, method):
    """And in a family whose towers and layers have all that scores read."""
    model = str(gallery.checkpoint("internvl"))
    asked: dict[str, Any] = {"ratio": 1.5, "images": (0, 1)} | FEW_LAYERS.get(method, {})
    config = ExportConfig.make(model=model, method=method, **SHORT, **asked)
    layouts = plan(config, gallery.family("internvl"))
    assert [layout.images for layout in layouts] == [1, 0]
    assert layouts[0].schedule.language and not layouts[1].schedule.language


# ---- half precision
@pytest.mark.parametrize("method", SCORING)
def test_choices_upon_choices_are_not_validated_in_half_precision(gallery, method, tmp_path):
    made: dict[str, Any] = {"output": tmp_path / "bundle", "ratio": 1.5, "method": method}
    made |= {"dtype": "float16"} | FEW_LAYERS.get(method, {})
    model, family = str(gallery.checkpoint("internvl")), gallery.family("internvl")
    if METHODS[method].score.chained:
        with pytest.raises(LuvcError, match=r"cannot be validated: use --dtype fp32 or --no-val"):
            prepare(ExportConfig.make(model=model, **SHORT, **made), family)
        made["check"] = False
    assert prepare(ExportConfig.make(model=model, **SHORT, **made), family).plans
    assert METHODS[method].score.chained == (METHODS[method].score.name in CHAINED)


def test_nothing_is_refused_where_nothing_is_chosen(gallery, tmp_path):
    made = {"output": tmp_path / "bundle", "ratio": 1, "method": "visionzip", "dtype": "float16"}
    model, family = str(gallery.checkpoint("internvl")), gallery.family("internvl")
    assert prepare(ExportConfig.make(model=model, **SHORT, **made), family).plans


# ---- measured time, and schedules of one's own
@pytest.mark.parametrize("method", LOOKING)
def test_probes_have_no_such_layers(gallery, method):
    with pytest.raises(LuvcError, match=r"lack the attention .* use --ratio-of flops"):
        planned(gallery, "qwen2_5_vl", method=method, ratio_of="latency")
    assert planned(gallery, "internvl", method=method, ratio_of="latency")


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ({"name": "pagerank"}, "no score is called 'pagerank'.*spectrum, random"),
        ({"name": "fastv", "options": {"layer": 2}}, "score fastv: .*layer.*it has no options"),
        ({"name": "hiprune", "options": {"alpha": 2}}, "score hiprune: .*alpha.*options alpha"),
        ({"name": "spectrum", "options": {"band": "low", "cutoff": 0}}, "score spectrum: cutoff 0"),
        ({"name": "random", "options": {"seed": [1]}}, "schedule .*: .*options"),
        ("fastv", "schedule .*: .*score"),
    ],
)
def test_a_schedule_file_with_a_wrong_score(gallery, tmp_path, score, message):
    file = tmp_path / "schedule.json"
    file.write_text(json.dumps({"score": score, "language": [{"layer": 1, "keep": 20}]}))
    model = str(gallery.checkpoint("internvl"))
    with pytest.raises(LuvcError, match=message):
        schedule = read_schedule(file)
        plan(ExportConfig.make(model=model, schedule=schedule, **SHORT), gallery.family("internvl"))


def test_a_schedule_file_that_names_a_score_that_the_model_cannot_give(gallery, tmp_path):
    file = tmp_path / "schedule.json"
    chosen = {"score": {"name": "fastervlm"}, "language": [{"layer": 0, "keep": 8}]}
    file.write_text(json.dumps(chosen))
    with pytest.raises(LuvcError, match="sees windows"):
        planned_as = ExportConfig.make(
            model=str(gallery.checkpoint("qwen2_5_vl")), schedule=read_schedule(file), **SHORT
        )
        plan(planned_as, gallery.family("qwen2_5_vl"))


@pytest.mark.parametrize("score", ["fastv", {"name": "fastv", "strength": 1}, 3])
def test_a_score_that_is_no_specification(gallery, score):
    with pytest.raises(LuvcError, match="score"):
        ExportConfig.make(model=str(gallery.checkpoint("internvl")), score=score)


@pytest.mark.parametrize("name", OWN)
def test_a_specification_of_any_score_is_taken(gallery, name):
    model = str(gallery.checkpoint("internvl"))
    config = ExportConfig.make(model=model, score=ScoreSpec(name=name))
    assert config.solver.score == spec_of(make(name, {}))
