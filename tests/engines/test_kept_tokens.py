"""Which differences in the tokens kept are ties, whatever the sign and offset of the scores."""

import numpy as np
import pytest

from luvc.engines.backends.base import PrefillResult
from luvc.engines.bundle.tensors import StageResult
from luvc.engines.tolerance import TOLERANCES
from luvc.engines.validate import _compare_embeds, _compare_kept, _near

V, KEEP = 40, 10
EXACT = TOLERANCES["float32"]
SCORES = {
    "energies": lambda x: 100 * np.exp(3 * x),
    "minus a norm": lambda x: -np.exp(1 - x),
    "around zero": lambda x: x - x[-KEEP],
    "all below zero": lambda x: x - 50,
    "attention": lambda x: np.exp(2 * x) / np.exp(2 * x).sum(),
}


def result(scores: np.ndarray, kept: list[int]) -> PrefillResult:
    """Of one stage before layer 1."""
    stage = StageResult(energies=scores[None].astype(np.float32), kept=np.array([sorted(kept)]))
    return PrefillResult(np.zeros((1, 1), np.float32), {1: stage})


def compared(scores: np.ndarray, kept: list[int]):
    """The scores' own choice against another one."""
    best = np.argsort(-scores, kind="stable")[:KEEP].tolist()
    (report,) = _compare_kept(result(scores, best), result(scores, kept), EXACT)
    return report


@pytest.fixture(params=SCORES)
def scores(request) -> np.ndarray:
    """Ascending [V], the last ones kept; the two around the threshold are nearly equal."""
    x = np.linspace(0, 1, V)
    x[V - KEEP - 1] = x[V - KEEP] - 1e-6
    return SCORES[request.param](x)


def test_a_swap_of_two_that_are_nearly_equal_is_a_tie(scores):
    report = compared(scores, [V - KEEP - 1, *range(V - KEEP + 1, V)])
    assert report.passed and report.ties == 1 and report.overlap == 1 - 1 / KEEP


@pytest.mark.parametrize("instead", [0, V - KEEP - 2])
def test_what_is_worse_is_no_tie_where_the_last_one_kept_left(scores, instead):
    """Only one of the two is at the threshold."""
    report = compared(scores, [instead, *range(V - KEEP + 1, V)])
    assert not report.passed and report.ties == 0


def test_one_that_is_clearly_better_may_not_leave(scores):
    report = compared(scores, [V - KEEP - 1, *range(V - KEEP, V - 1)])
    assert not report.passed and report.ties == 0


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_for_energies_the_margin_is_a_share_of_the_last_one_kept(dtype):
    """At most half of the tokens kept: the median is below the last of them."""
    tie = TOLERANCES[dtype].tie
    for seed in range(20):
        energies = np.random.default_rng(seed).chisquare(4, 500).astype(np.float32)
        for keep in (1, 50, 250):
            kept = np.argsort(-energies)[:keep]
            last = energies[kept].min()
            assert np.array_equal(_near(energies, kept, tie), abs(energies - last) <= tie * last)


def test_where_most_are_kept_the_margin_is_a_share_of_the_median():
    energies = np.linspace(0, 1, 101)
    near = _near(energies, np.arange(3, 101), 0.021)
    assert np.flatnonzero(near).tolist() == [2, 3, 4]


def test_what_rides_behind_the_visual_tokens_is_compared_apart():
    """Its size would hide what the tokens differ by."""
    tokens = np.random.default_rng(0).normal(size=(2, 6, 8)).astype(np.float32)
    scores = np.full((2, 6, 2), [5000, 0.5], np.float32)
    embeds = np.concatenate([tokens, scores], -1)
    wrong = embeds.copy()
    wrong[0, 0, 0] += 0.01
    parted = embeds.copy()
    parted[..., -2:] += [0.25, -0.25]  # the same sum
    for candidate, passed in ((embeds, [True, True]), (wrong, [False, True]), (parted, [True] * 2)):
        reports = list(_compare_embeds(8, embeds, candidate, EXACT))
        assert [r.name for r in reports] == ["vision", "tower's score"]
        assert [r.passed for r in reports] == passed
    (alone,) = _compare_embeds(4, tokens, tokens, EXACT)
    assert alone.name == "vision"
