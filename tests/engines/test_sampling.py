"""Sampling against Hugging Face's logits processors, and options that are refused."""

import inspect
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    GenerationConfig,
    GenerationMixin,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from luvc.engines.sampling import NEUTRAL, Sampler, Sampling, distribution, not_carried
from luvc.errors import LuvcError

LOGITS = np.random.default_rng(0).normal(size=500).astype(np.float32) * 4


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1, 0, 1), (0.7, 0, 1), (1, 5, 1), (1, 0, 0.8), (0.5, 40, 0.9), (2, 499, 0.1), (1, 1, 1)],
)
def test_probabilities_equal_hugging_face(temperature, top_k, top_p):
    scores = torch.tensor(LOGITS, dtype=torch.float64)[None]
    ids = torch.LongTensor([[0]])
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
            torch.LongTensor([seen]), torch.tensor(logits, dtype=torch.float64)[None]
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
    assert not Sampling(do_sample=True).override(temperature=0, seed=3).do_sample
    assert base.override(stop="END").stop == base.override(stop_strings=["END"]).stop == ("END",)
    assert Sampling.from_generation_config({"stop_strings": "END"}).stop == ("END",)
    assert not Sampling.from_generation_config({"temperature": 0.0, "do_sample": True}).do_sample
    assert base.override(seed=None, max_new_tokens=5).max_new_tokens == 5


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1},
        {"top_p": 0},
        {"top_p": 1.5},
        {"top_k": -1},
        {"max_new_tokens": 0},
        {"repetition_penalty": 0},
        {"beams": 4},
        {"seed": -1},
    ],
)
def test_bad_options_are_named(options):
    with pytest.raises(LuvcError, match=next(iter(options))):
        Sampling().override(**options)


def test_a_seed_leaves_sampling_as_it_is():
    """A client that sets one for answers that repeat does not ask for other answers."""
    for sampled in (False, True):
        changed = Sampling(do_sample=sampled).override(seed=3)
        assert changed == Sampling(do_sample=sampled, seed=3)
    assert Sampling().override(seed=3, top_k=5).do_sample


# ---- what a checkpoint's generation config says beyond that
class Network(GenerationMixin):
    config = SimpleNamespace(is_encoder_decoder=False)


def changes_tokens(name, value) -> bool:
    """Whether Hugging Face's generation would put a processor before the choice, or search otherwise."""
    config = GenerationConfig(do_sample=True, **{name: value})
    config._eos_token_tensor = torch.tensor([2])
    network: Any = Network()
    found = network._get_logits_processor(
        config, input_ids_seq_length=3, encoder_input_ids=torch.tensor([[7, 8, 9]]), device="cpu"
    )
    mode = GenerationConfig(**{"top_k": 4, name: value}).get_generation_mode()
    return bool(found) or mode != "greedy_search"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_p", 0.1), ("top_h", 0.4), ("typical_p", 0.9), ("epsilon_cutoff", 3e-4),
        ("eta_cutoff", 3e-4), ("no_repeat_ngram_size", 3), ("encoder_no_repeat_ngram_size", 2),
        ("encoder_repetition_penalty", 1.2), ("bad_words_ids", [[5, 6]]), ("suppress_tokens", [4]),
        ("begin_suppress_tokens", [4]), ("forced_bos_token_id", 0), ("forced_eos_token_id", 2),
        ("sequence_bias", [[[5], 1.5]]), ("min_length", 9), ("min_new_tokens", 4),
        ("exponential_decay_length_penalty", [3, 1.1]), ("guidance_scale", 1.5), ("num_beams", 4),
        ("penalty_alpha", 0.6), ("dola_layers", "low"), ("force_words_ids", [[5]]),
    ],
)  # fmt: skip
def test_settings_that_choose_other_tokens_are_told(name, value):
    assert changes_tokens(name, value), "or it need not be told"
    assert not_carried({name: value, "top_p": 0.9, "pad_token_id": 0}) == {name: value}


def test_settings_that_change_nothing_are_not_told():
    """Hugging Face's own defaults, and what is carried over."""
    assert not_carried(GenerationConfig._get_default_generation_params()) == {}
    assert not_carried({"min_p": None, "bad_words_ids": [], "max_length": 4096}) == {}
    known = {"temperature": 0.5, "top_k": 4, "top_p": 0.9, "repetition_penalty": 1.2}
    for name, value in known.items():
        assert changes_tokens(name, value) and name in Sampling.model_fields
        assert not_carried({name: value}) == {}


def test_every_logits_processor_of_hugging_face_is_accounted_for():
    """A later transformers may have more of them."""
    source = inspect.getsource(vars(GenerationMixin)["_get_logits_processor"])
    names = set(re.findall(r"generation_config\.([a-z]\w*)", source))
    others = names - set(Sampling.model_fields) - set(NEUTRAL)
    assert others == {"max_length", "remove_invalid_values", "renormalize_logits", "use_cache"}


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": float("inf")},
        {"repetition_penalty": float("nan")},
        {"repetition_penalty": 5e-324},
        {"temperature": float("inf")},
        {"temperature": float("nan")},
        {"temperature": np.zeros(3)},
        {"top_p": float("nan")},
        {"stop": ["a"] * 17},
        {"stop": "a" * 257},
        {"stop": "\ud800"},
    ],
)
def test_options_out_of_bounds_are_refused_briefly(options):
    with pytest.raises(LuvcError, match=f"generation option {next(iter(options))}") as caught:
        Sampling().override(**options)
    assert len(str(caught.value)) < 300


def test_a_temperature_near_nothing_is_greedy():
    """Scores divided by it would not be numbers."""
    scores = np.random.default_rng(0).normal(size=50)
    for temperature in (5e-324, 1e-300, 1e-9):
        tokens, p = distribution(scores, Sampling(temperature=temperature, do_sample=True))
        assert tokens[p.argmax()] == scores.argmax() and p.max() == 1 and np.isfinite(p).all()
