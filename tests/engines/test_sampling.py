"""Sampling against Hugging Face's logits processors, and options that are refused."""

import numpy as np
import pytest
import torch
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from luvc.engines.sampling import Sampler, Sampling, distribution
from luvc.errors import LuvcError

LOGITS = np.random.default_rng(0).normal(size=500).astype(np.float32) * 4


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1, 0, 1), (0.7, 0, 1), (1, 5, 1), (1, 0, 0.8), (0.5, 40, 0.9), (2, 499, 0.1), (1, 1, 1)],
)
def test_probabilities_equal_hugging_face(temperature, top_k, top_p):
    scores = torch.tensor(LOGITS, dtype=torch.float64)[None]
    ids = torch.zeros(1, 1, dtype=torch.long)
    scores = TemperatureLogitsWarper(float(temperature))(ids, scores)
    if top_k:
        scores = TopKLogitsWarper(top_k)(ids, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(ids, scores)
    wanted = torch.softmax(scores, -1)[0].numpy()
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, do_sample=True)
    np.testing.assert_allclose(
        probabilities(LOGITS.astype(np.float64), sampling), wanted, atol=1e-12
    )


def probabilities(scores, sampling):
    """Over the whole vocabulary."""
    p = np.zeros(len(scores))
    tokens, values = distribution(scores, sampling)
    p[tokens] = values
    return p


def test_repetition_penalty_equals_hugging_face():
    prompt = [3, 7, 7, 90]
    sampler = Sampler(Sampling(repetition_penalty=1.8), prompt)
    seen, logits = list(prompt), LOGITS.copy()
    for _ in range(20):
        wanted = RepetitionPenaltyLogitsProcessor(1.8)(
            torch.tensor([seen]), torch.tensor(logits, dtype=torch.float64)[None]
        )
        token = sampler.choose(logits)
        assert token == int(wanted.argmax())
        seen.append(token)


def test_a_seed_repeats_and_seeds_differ():
    def draw(seed):
        sampler = Sampler(Sampling(do_sample=True, top_k=0, seed=seed), [])
        return [sampler.choose(LOGITS / 8) for _ in range(30)]

    assert draw(1) == draw(1) != draw(2)


def test_draws_follow_the_distribution():
    sampling = Sampling(do_sample=True, top_k=4, temperature=3.0, seed=0)
    sampler = Sampler(sampling, [])
    counts = np.bincount([sampler.choose(LOGITS) for _ in range(4000)], minlength=500) / 4000
    np.testing.assert_allclose(counts, probabilities(LOGITS.astype(float), sampling), atol=0.03)


def test_overrides():
    base = Sampling.from_generation_config(
        {
            "eos_token_id": 2,
            "do_sample": False,
            "temperature": 0.6,
            "pad_token_id": 0,
            "top_k": None,
        }
    )
    assert base.eos_token_id == (2,) and base.temperature == 0.6 and not base.do_sample
    assert base.override(temperature=0.2).do_sample
    assert not base.override(temperature=0).do_sample
    assert base.override(stop="END").stop == base.override(stop_strings=["END"]).stop == ("END",)
    assert Sampling.from_generation_config({"stop_strings": "END"}).stop == ("END",)
    assert not Sampling.from_generation_config({"temperature": 0.0, "do_sample": True}).do_sample
    assert base.override(seed=None, max_new_tokens=5).max_new_tokens == 5


@pytest.mark.parametrize(
    "options",
    [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.5}, {"top_k": -1}, {"max_new_tokens": 0},
     {"repetition_penalty": 0}, {"beams": 4}, {"seed": -1}],
)  # fmt: skip
def test_bad_options_are_named(options):
    with pytest.raises(LuvcError, match=next(iter(options))):
        Sampling().override(**options)
