"""Every score against its definition in numpy, its options, and what the seam asks of its file."""

import inspect
import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from luvc.engines.bundle.schedule import ScoreSpec
from luvc.exporter.planning.methods import METHODS, score_of, spec_of
from luvc.plugins.scores.base import HEADS, QUESTION, TOWER, Seen, ordered, ranks, top
from luvc.plugins.scores.registry import OWN, SCORES, make

from . import definitions as numpy_of
from .scenes import DEPTH, B, Sequence, VisionTower

KEEP = 5  # of each run
BY_PROPERTIES = {"random"}  # its numbers are PyTorch's own: test_random_*
OPTIONS = {
    "spectrum": [{}, {"cutoff": 0.5, "signal": "raw"}, {"cutoff": 0.25, "band": "high"}],
    "ivc": [{}, {"share": 0.3, "rest": "uniform"}, {"share": 0.2, "rest": "fastv"}],
    "vtc-cls": [{}, {"start": 0.0}, {"start": 0.9}],
    "vflowopt": [{}, {"threshold": 0.97}],
    "hiprune": [{}, {"alpha": 0.5}, {"alpha": 1.0, "middle": 0.8}],
    "visionzip": [{}, {"merged": 0.4}, {"merged": 0.9}],
    "visiondrop": [{}, {"merged": 0.4}],
}
"""Of each score with options, to be tried; the first are its defaults."""


def cases(definitions):
    """(name, options) of the scores in a table."""
    return [
        pytest.param(name, options, id=" ".join([name, *map(str, options.values())]))
        for name in definitions
        for options in OPTIONS.get(name, [{}])
    ]


def kept(scores: torch.Tensor, keep: int) -> list[set[int]]:
    return [set(row) for row in top(scores, keep).tolist()]


def test_every_score_has_a_definition():
    tables = numpy_of.SCORED, numpy_of.PICKED, numpy_of.MEASURED, numpy_of.CHOSEN, numpy_of.MERGED
    defined = [name for table in tables for name in table]
    assert sorted(defined + sorted(BY_PROPERTIES)) == sorted(OWN)


# ---- against numpy
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(("name", "options"), cases(numpy_of.SCORED))
def test_scores_of_a_sequence(name, options, groups):
    score, scene = make(name, options), Sequence(groups)
    found = score(scene.seen(score, KEEP), KEEP)
    found = found.reshape(B, -1, scene.tokens).sum(1).reshape(B * groups, scene.n)
    wanted = numpy_of.SCORED[name](scene, KEEP, **options)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-6)
    assert kept(found, KEEP) == numpy_of.best(wanted, KEEP)
    assert bool(scene.heads_asked) == (HEADS in score.reads)


@pytest.mark.parametrize("keep", [1, KEEP, 8])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("name", numpy_of.PICKED)
def test_tokens_are_picked_one_after_the_other(name, groups, keep):
    score, scene = make(name, {}), Sequence(groups)
    found = score(scene.seen(score, keep), keep)
    order = [row.argsort(descending=True)[:keep].tolist() for row in found]
    assert order == numpy_of.PICKED[name](scene, keep)
    assert ((found > 0).sum(1) == keep).all()


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize(("name", "options"), cases(numpy_of.MEASURED))
def test_scores_of_a_tower(name, options, prefix):
    score, tower = make(name, options), VisionTower(prefix)
    found = score.measure(tower.shown(score), KEEP)
    wanted = numpy_of.MEASURED[name](tower, **options)
    np.testing.assert_allclose(found.scores, wanted, rtol=2e-5)
    assert found.tokens is None
    if name == "fopru" and prefix:
        received, given = numpy_of.fopru_vectors(tower)
        assert {*(received.var(1) > given.var(1))} == {True, False}, "both branches are tried"


@pytest.mark.parametrize("keep", [1, KEEP, 11])
@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize(("name", "options"), cases(numpy_of.CHOSEN))
def test_choices_of_a_tower(name, options, prefix, keep):
    score, tower = make(name, options), VisionTower(prefix)
    found = score.measure(tower.shown(score), keep)
    assert kept(found.scores, keep) == numpy_of.CHOSEN[name](tower, keep, **options)
    assert found.tokens is None


@pytest.mark.parametrize("keep", [1, KEEP, 11])
@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize(("name", "options"), cases(numpy_of.MERGED))
def test_merged_tokens_of_a_tower(name, options, prefix, keep):
    score, tower = make(name, options), VisionTower(prefix)
    found = score.measure(tower.shown(score), keep)
    wanted = numpy_of.MERGED[name](tower, keep, **options)
    assert kept(found.scores, keep) == [places for places, _ in wanted]
    assert found.tokens is not None
    for row, (places, values) in enumerate(wanted):
        chosen = sorted(places)
        np.testing.assert_allclose(found.tokens[row, chosen], values[chosen], rtol=1e-4, atol=1e-5)


def test_a_later_stage_takes_the_best_of_what_a_tower_chose():
    """Not the lowest positions, as equal scores would have it."""
    score, tower = make("visionzip", {}), VisionTower()
    found = score.measure(tower.shown(score), 11).scores
    attention = tower.received(DEPTH - 2)
    for row, places in enumerate(kept(found, 11)):
        strongest = sorted(places, key=lambda i: -attention[row, i])[:4]
        assert kept(found[row : row + 1], 4) == [set(strongest)]


@pytest.mark.parametrize("keep", [1, KEEP, 8])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(("name", "options"), cases(["visiondrop"]))
def test_merged_tokens_inside_the_language_model(name, options, groups, keep):
    score, scene = make(name, options), Sequence(groups)
    seen = scene.seen(score, keep)
    found = top(score(seen, keep), keep)
    wanted = numpy_of.visiondrop_inside(scene, keep, **options)
    assert [set(row) for row in found.tolist()] == [places for places, _ in wanted]
    values = score.values(seen, found)
    assert values is not None and set(scene.heads_asked) == {True}
    for row, (places, all_values) in enumerate(wanted):
        np.testing.assert_allclose(values[row], all_values[sorted(places)], rtol=1e-4, atol=1e-5)


def test_visiondrop_goes_by_the_tower_before_the_first_layer():
    score, scene = make("visiondrop", {}), Sequence(layer=0)
    measured = torch.rand(B, scene.tokens)
    seen = replace(scene.seen(score, KEEP), measured=measured)
    assert torch.equal(score(seen, KEEP), measured.reshape(B * scene.groups, scene.n))
    assert score.values(seen, top(score(seen, KEEP), KEEP)) is None


@pytest.mark.parametrize("name", [n for n in OWN if SCORES[n]().reads == {TOWER}])
def test_what_rode_along_is_the_score(name):
    score, scene = make(name, {}), Sequence()
    measured = torch.rand(B, scene.tokens)
    seen = replace(scene.seen(score, KEEP), measured=measured)
    assert torch.equal(score(seen, KEEP), measured.reshape(B * scene.groups, scene.n))


def test_random_is_a_permutation_of_its_seed():
    first, again, other = (
        make("random", {"seed": seed}).tables(40, 9)["order"] for seed in (1, 1, 2)
    )
    assert sorted(first.tolist()) == list(range(40))
    assert torch.equal(first, again) and not torch.equal(first, other)
    score, scene = make("random", {}), Sequence()
    found = score(scene.seen(score, KEEP), KEEP)
    assert torch.equal(found, score.tables(scene.n, KEEP)["order"].expand(B * scene.groups, -1))


def test_random_favours_no_place():
    draws, keep = 600, 5
    n = 4 * keep
    counts = np.zeros(n)
    for seed in range(draws):
        order = make("random", {"seed": seed}).tables(n, keep)["order"]
        counts[list(kept(order[None], keep)[0])] += 1
    expected = draws * keep / n
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


@pytest.mark.parametrize("ties", [False, True])
def test_the_best_and_their_ranks_equal_numpy(ties):
    random = np.random.default_rng(0)
    scores = random.normal(size=(4, 30)).astype(np.float32)
    scores = np.round(scores) if ties else scores
    order = np.argsort(-scores, axis=1, kind="stable")
    assert np.array_equal(ranks(torch.from_numpy(scores)), np.argsort(order, axis=1))
    for keep in (0, 1, 7, 30):
        found = top(torch.from_numpy(scores), keep)
        assert np.array_equal(found, np.sort(order[:, :keep], axis=1))
    masks = np.stack([random.permutation(np.arange(30) < 11) for _ in range(4)])
    wanted = np.stack([np.flatnonzero(mask) for mask in masks])
    assert np.array_equal(ordered(torch.from_numpy(masks), 11), wanted)


# ---- options
REFUSED = [
    ("spectrum", "cutoff", (-0.1, 1.1)),
    ("spectrum", "band", ("middle", 0)),
    ("spectrum", "signal", ("queries", None)),
    ("random", "seed", (-1, 1 << 31, 0.5)),
    ("vtc-cls", "start", (-0.1, 1.0)),
    ("hiprune", "alpha", (-0.1, 1.1)),
    ("hiprune", "middle", (0.0, 1.1)),
    ("visionzip", "merged", (0.0, 1.0)),
    ("vflowopt", "threshold", (-0.1, 100.5)),
    ("visiondrop", "merged", (0.0, 1.0)),
    ("mmtok", "temperature", (0.0, 100.5)),
    ("ivc", "share", (0.0, 0.6)),
    ("ivc", "rest", ("ivc", 1)),
]


def beyond(name: str, option: str) -> tuple:
    """Values just outside of an option's own bounds; none where it has no bound on one side."""
    kind = get_type_hints(SCORES[name], include_extras=True)[option]
    if get_origin(kind) is Literal:
        return ("none of them", None)
    marks = [m for mark in kind.__metadata__ for m in getattr(mark, "metadata", [mark])]
    step = 1 if kind.__origin__ is int else 1e-6
    out = {"ge": -step, "gt": 0, "le": step, "lt": 0}
    found = [getattr(m, s) + by for m in marks for s, by in out.items() if hasattr(m, s)]
    return tuple(found) if len(found) == 2 else ()


UNLISTED = [
    (name, field.name, beyond(name, field.name))
    for name in OWN
    for field in fields(SCORES[name])  # type: ignore[arg-type]
    if (name, field.name) not in {(n, option) for n, option, _ in REFUSED}
]
"""Options whose refusals no line says: their bounds say them."""


@pytest.mark.parametrize(("name", "option", "values"), [*REFUSED, *UNLISTED])
def test_options_out_of_range_are_refused_by_name(name, option, values):
    assert values, f"{name}: give {option} both bounds"
    number = isinstance(getattr(make(name, {}), option), float)
    for value in (*values, "many", *([float("nan"), float("inf")] if number else [])):
        with pytest.raises(ValidationError) as caught:
            make(name, {option: value})
        assert caught.value.errors()[0]["loc"] == (option,), value


@pytest.mark.parametrize("name", OWN)
def test_unknown_options_are_refused_by_name(name):
    with pytest.raises(ValidationError) as caught:
        make(name, {"sharpness": 1})
    assert "sharpness" in str(caught.value)


@pytest.mark.parametrize(("name", "options"), cases(OWN))
def test_options_are_recorded_whole(name, options):
    score = make(name, options)
    spec = spec_of(score)
    assert spec.options == {f.name: getattr(score, f.name) for f in fields(score)}  # type: ignore[arg-type]
    assert spec.question == (QUESTION in score.reads)
    assert score_of(ScoreSpec.model_validate_json(spec.model_dump_json())) == score
    assert json.loads(spec.model_dump_json())["name"] == name


# ---- the seam
def test_scores_need_no_exporter():
    """What a score calls is there as soon as it is."""
    code = f"""
import sys, torch
from {make.__module__} import make
from {Seen.__module__} import Seen
x = torch.randn(1, 9, 4)
seen = Seen(x, lambda: x, torch.arange(9)[None], torch.tensor([8]), 1, None)
for name, options in (("divprune", {{}}), ("spectrum", {{"cutoff": 0.5}})):
    score = make(name, options)
    object.__setattr__(seen, "tables", score.tables(9, 3))
    print(tuple(score(seen, 3).reshape(1, 9).shape))
assert not any(name.startswith("luvc.exporter") for name in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:2] == ["(1, 9)"] * 2, done.stderr


@pytest.mark.parametrize("name", OWN)
def test_a_score_is_short_and_says_what_it_is(name):
    score = SCORES[name]
    assert score.name == name and score.about and score.source
    beside = [s for s in SCORES.values() if s.__module__ == score.__module__]
    whole = Path(inspect.getfile(score)).read_text()
    text = whole if len(beside) == 1 else inspect.getsource(score)
    assert text.count("\n") < 100
    assert any(method.score.name == name for method in METHODS.values())


@pytest.mark.parametrize("name", [n for n in OWN if TOWER in SCORES[n]().reads])
@pytest.mark.parametrize("depth", [1, 2, 23, 24, 27, 32])
def test_a_tower_has_the_layers_that_scores_look_at(name, depth):
    layers = make(name, {}).layers(depth)
    assert layers and all(0 <= layer < depth for layer in layers)
