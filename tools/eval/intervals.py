"""95 % intervals: Wilson's for a share, a percentile bootstrap for means over questions."""

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Share:
    """A value with its interval; shares are 0 .. 1, differences -1 .. 1."""

    value: float
    low: float
    high: float


NOTHING = Share(float("nan"), float("nan"), float("nan"))


def wilson(right: int, count: int) -> Share:
    """Share of right answers with Wilson's interval (1927); of no questions, nan."""
    if not count:
        return NOTHING
    share, z2 = right / count, NormalDist().inv_cdf(0.975) ** 2
    middle = share + z2 / (2 * count)
    reach = math.sqrt(z2 * (share * (1 - share) + z2 / (4 * count)) / count)
    low, high = ((middle + sign * reach) / (1 + z2 / count) for sign in (-1, 1))
    return Share(share, max(0.0, low), min(1.0, high))


def bootstrap_mean(values: np.ndarray, outside: float = 0.05, resamples: int = RESAMPLES) -> Share:
    """Mean of one value a question, [questions], with a percentile bootstrap over questions.

    Of a difference of two methods on the same questions this is the paired bootstrap. Resampling
    needs only how often each distinct value is drawn: a multinomial, with a fixed seed.

    Args:
        values: one a question.
        outside: how often the interval may miss, half of it on each side.
        resamples: draws; more for a small `outside`.
    """
    values = np.asarray(values, float)
    if not len(values):
        return NOTHING
    distinct, counts = np.unique(values, return_counts=True)
    draws = _draws(tuple(counts.tolist()), resamples)
    low, high = np.quantile(draws @ distinct / len(values), [outside / 2, 1 - outside / 2])
    return Share(float(values.mean()), float(low), float(high))


@lru_cache(maxsize=8)
def _draws(counts: tuple[int, ...], resamples: int) -> np.ndarray:
    """How often each distinct value is drawn, [resamples, values]; alike where no two are equal."""
    total = sum(counts)
    return np.random.default_rng(0).multinomial(total, np.array(counts) / total, resamples)
