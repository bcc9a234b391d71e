"""The study's plans against the budget, its own scores against numpy, its list against the product's."""

import numpy as np
import pytest
import torch

from benchmarks.accuracy import plans, scores
from benchmarks.accuracy.methods import METHODS, Method
from benchmarks.training.checkpoint import build_config, build_tokenizer, save_processor
from luvc.errors import LuvcError
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.layouts.planned import image_geometry, problem_of
from luvc.exporter.planning import methods as product
from luvc.plugins.scores.base import Heads, Seen
from luvc.plugins.scores.registry import SCORES, add

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
    own = scores.VisualAttention
    with pytest.raises(ValueError, match="there is a score called 'visual-attention' already"):
        add(own)
    assert SCORES["visual-attention"] is own


@pytest.mark.parametrize("ratio", [1.5, 2.0, 3.0, 4.0])
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


def test_every_method_of_the_product_can_be_measured():
    known = {method.name for method in METHODS.values() if method.product}
    assert product.METHODS.keys() == known
