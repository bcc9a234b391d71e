"""The study's plans against the budget, its own scores against numpy, its list against the product's."""

import numpy as np
import pytest
import torch

from benchmarks.accuracy import plans, scores
from benchmarks.accuracy.methods import METHODS, OLDER, Method
from benchmarks.training.checkpoint import build_config, build_tokenizer, save_processor
from luvc.errors import LuvcError
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.layouts.planned import image_geometry, problem_of
from luvc.exporter.planning import methods as product
from luvc.plugins.scores.base import Heads, Seen
from luvc.plugins.scores.registry import SCORES, add
from luvc.plugins.scores.spectrum.contract import cutoff_bin

B, S = 2, 24
V = 15
D, H = 6, 3
NO_PLAN = {("transprune", 4.0), ("keeps linear", 4.0)}


@pytest.fixture(scope="module")
def problems(tmp_path_factory) -> list[plans.TokenProblem]:
    """The pocket model's, of one picture and of two."""
    folder, tokenizer = tmp_path_factory.mktemp("pocket"), build_tokenizer()
    build_config(tokenizer).save_pretrained(folder)
    save_processor(tokenizer, folder)
    family = Family.load(str(folder))
    found = [problem_of(family, image_geometry(family, (192, 192), n), 0) for n in (1, 2)]
    return [plans.TokenProblem.of(problem) for problem in found]


def there(method: Method) -> Method:
    """A method, unless a schedule cannot say what it does."""
    if method.name == "downsample":
        pytest.skip("the study shows pictures of one size")
    return method


def seen(**heads: torch.Tensor) -> Seen:
    """A sequence whose visual tokens stand at 3 .. 17."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(B, S, D, generator=generator)
    return Seen(
        hidden=hidden,
        normed=lambda: hidden * 2,
        visual_index=torch.arange(3, 3 + V).expand(B, -1),
        last=torch.full((B,), S - 2),
        groups=1,
        heads=lambda rotary: Heads(heads["query"], heads["key"], 0.5),
    )


@pytest.mark.parametrize("score", [scores.Cosine, scores.Residual, scores.Share])
def test_other_scores_of_the_low_pass(score):
    entering = seen()
    x = 2 * entering.hidden[:, 3 : 3 + V].double().numpy()
    bins = np.fft.fft(x, axis=1)
    far = np.minimum(np.arange(V), V - np.arange(V)) > cutoff_bin(0.4, V)
    low = np.fft.ifft(np.where(far[None, :, None], 0, bins), axis=1).real
    norm = np.linalg.norm
    expected = {
        "cosine": (x * low).sum(2) / norm(x, axis=2) / norm(low, axis=2),
        "residual": -norm(x - low, axis=2),
        "share": norm(low, axis=2) / norm(x, axis=2),
    }[score.name]
    np.testing.assert_allclose(score(cutoff=0.4)(entering, 5).numpy(), expected, atol=1e-4)


def test_visual_attention_is_causal():
    generator = torch.Generator().manual_seed(2)
    query, key = (torch.randn(B, H, S, 4, generator=generator) for _ in range(2))
    ours = scores.VisualAttention()(seen(query=query, key=key), 5).numpy()
    expected = np.zeros((B, V))
    for b, h, place in np.ndindex(B, H, V):
        row = (
            0.5 * key[b, h, : 4 + place].double().numpy() @ query[b, h, 3 + place].double().numpy()
        )
        weights = np.exp(row - row.max())
        expected[b, : place + 1] += (weights / weights.sum())[3:] / (H * V)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_a_score_of_ones_own_hides_none_of_the_products():
    with pytest.raises(ValueError, match="there is a score called 'cosine' already"):
        add(scores.Cosine)
    assert SCORES["cosine"] is scores.Cosine


@pytest.mark.parametrize("ratio", [1.3, 1.5, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("name", [n for n in METHODS if n != "--ratio"])
def test_every_method_gets_the_same_budget(problems, name, ratio):
    method = there(METHODS[name])
    for problem in problems:
        budget = plans.Budget(problem, ratio)
        if (name, ratio) in NO_PLAN:
            with pytest.raises(LuvcError):
                method.schedule(budget)
            continue
        schedule = method.schedule(budget)
        left, visual = problem.visual_tokens(schedule.vision, schedule.exit), []
        keeps = {prune.layer: prune.keep for prune in schedule.language}
        for layer in range(budget.layers):
            if layer in keeps:
                assert keeps[layer] < left
                left = keeps[layer]
            visual.append(left)
        mean = sum(visual) / len(visual)
        assert mean == pytest.approx(problem.mean(schedule))
        if schedule.exit:  # whole rows and columns
            assert 0.6 * budget.mean <= mean <= budget.mean
        elif name == "drop-all":  # the last layer that makes the ratio
            assert budget.mean - budget.tokens / budget.layers < mean <= budget.mean
        else:
            assert abs(mean - budget.mean) <= 0.025 * budget.mean


def test_the_exported_ratio_removes_more_where_text_counts(problems):
    budget = plans.Budget(problems[0], 2.0)
    exported, luvc = (METHODS[name].schedule(budget) for name in ("--ratio", "luvc"))
    assert problems[0].mean(exported) < problems[0].mean(luvc)


def test_every_method_of_the_product_is_measured():
    known = {method.name for method in METHODS.values() if method.product}
    assert product.METHODS.keys() - known == {"energy"}  # today's defaults by another name
    assert product.METHODS["energy"].options == product.METHODS["luvc"].options


def test_older_names_are_those_of_todays_methods():
    assert OLDER.keys().isdisjoint(METHODS) and set(OLDER.values()) <= METHODS.keys()
