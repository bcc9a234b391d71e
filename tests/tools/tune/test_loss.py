"""luvc-tune's loss against Hugging Face's layers and numpy, and what it costs."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from luvc.engines.prompt.processing import open_image
from luvc.tools.eval.items import Item
from luvc.tools.hugging_face import model_inputs
from luvc.tools.tune import divergence
from luvc.tools.tune.candidates import key_of, moves, of_method
from luvc.tools.tune.divergence import Expected
from luvc.tools.tune.effort import Effort, minutes

from ...families.pruned_by_hand import ByHand
from .conftest import lab_of


def divergence_in_numpy(wanted: np.ndarray, got: np.ndarray) -> np.ndarray:
    """Of logits [A, vocabulary] each, by the definition."""
    wanted, got = (x - x.max(1, keepdims=True) for x in (wanted.astype(float), got.astype(float)))
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (wanted, got))
    return (p * np.log(p / q)).sum(1)


def test_the_loss_is_the_divergence_of_hugging_faces_own_layers(model, data, tmp_path):
    lab = lab_of(model, data, tmp_path)
    energy = of_method("luvc")
    energy = energy.having("band", "low", energy.options.with_score(band="low", cutoff=1.0))
    (schedule,) = (p.layout.schedule for p in lab.plans(energy))
    found, answers = lab.losses(energy, 0), lab.answers(None)
    theirs = AutoModelForImageTextToText.from_pretrained(
        model, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    for item, nats, same in zip(lab.questions[0], found.nats, found.same, strict=True):
        logits = []
        for prunes in ({}, {p.layer: p.keep for p in schedule.language}):
            processor = lab.bench.processor(lab.answerer(None).vlm.manifest)
            shown = Item(item.id, "", item.question, (), (open_image(item.images[0]),))
            given = model_inputs(
                theirs, lab.bench.family, processor, [processor.prompt(shown.messages)]
            )
            hand, rows = ByHand(theirs, given, prunes, 1.0), []
            for token in answers[item.id][1]:
                rows.append(hand.logits().numpy())
                hand.ids.append(token)
            logits.append(np.array(rows))
        assert logits[0].argmax(1).tolist() == answers[item.id][1]
        expected = divergence_in_numpy(*logits).mean()
        assert expected > 0.01 and nats == pytest.approx(expected, rel=1e-3)
        assert same == (logits[1].argmax(1).tolist() == answers[item.id][1])


@pytest.mark.parametrize("kept", [5, 1024])
def test_a_large_vocabulary_is_held_in_part(monkeypatch, kept):
    monkeypatch.setattr(divergence, "KEPT", kept)
    wanted, got = np.random.default_rng(0).normal(size=(2, 7, 300)) * 3
    found = Expected.of(torch.tensor(wanted)).divergence(torch.tensor(got)).numpy()
    whole = divergence_in_numpy(wanted, got)
    if kept > 300:
        assert np.allclose(found, whole)
        return
    assert (found < whole).all() and (found > 0).all()
    best = np.argsort(-wanted)[:, :kept]

    def joined(x):  # all that is not kept as one token
        p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
        top = np.take_along_axis(p, best, 1)
        return np.log(np.hstack([top, 1 - top.sum(1, keepdims=True)]))

    assert np.allclose(found, divergence_in_numpy(joined(wanted), joined(got)))


def test_the_unmodified_model_loses_nothing(model, data, tmp_path):
    lab = lab_of(model, data, tmp_path, ratio=1)
    found = lab.losses(of_method("luvc"), 0)
    assert np.abs(found.nats).max() < 1e-12 and found.same.all()


def test_how_long_it_takes_is_known_after_one_candidate(model, data, tmp_path):
    lab, start = lab_of(model, data, tmp_path), of_method("luvc")
    assert not Effort(lab, [start], 3).known
    lab.loss(start, 0)
    first = [of_method(name) for name in ("luvc", "divprune", "visionzip", "transprune")]
    one, three = Effort(lab, first, 1), Effort(lab, first, 3)
    assert three.known
    assert 0 < one.usual(start) < one.most(start) < three.usual(start) < three.most(start)
    looks, plain = (of_method(name) for name in ("visionzip", "divprune"))
    assert lab.own_tower(looks) and not lab.own_tower(plain)
    assert three.of(looks, 10) > three.of(plain, 10) > 0
    assert (minutes(20), minutes(100), minutes(3600)) == ("a minute", "2 minutes", "60 minutes")


def test_equal_schedules_are_one(model, data, tmp_path):
    lab = lab_of(model, data, tmp_path)
    start = of_method("luvc")
    keys = {c.name: key_of(lab.plans(c)) for c in moves(start) if c.moved[-1][0] == "scope"}
    assert set(keys.values()) == {lab.key(start)}, "one picture of one tile"
    assert lab.key(of_method("divprune")) != lab.key(of_method("uniform"))
