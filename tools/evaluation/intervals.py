"""95 % intervals: Wilson's for a share, a percentile bootstrap for means over questions."""

from dataclasses import dataclass

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
    """Share of right answers with Wilson's interval; of no questions, nan."""
    from scipy.stats import binomtest

    if not count:
        return NOTHING
    interval = binomtest(right, count).proportion_ci(0.95, method="wilson")
    return Share(right / count, float(interval.low), float(interval.high))


def bootstrap_mean(values: np.ndarray) -> Share:
    """Mean of one value a question, [questions], with a percentile bootstrap over questions.

    Of a difference of two methods on the same questions this is the paired bootstrap. Resampling
    needs only how often each distinct value is drawn: a multinomial, with a fixed seed.
    """
    values = np.asarray(values, float)
    if not len(values):
        return NOTHING
    distinct, counts = np.unique(values, return_counts=True)
    draws = np.random.default_rng(0).multinomial(len(values), counts / len(values), RESAMPLES)
    low, high = np.percentile(draws @ distinct / len(values), [2.5, 97.5])
    return Share(float(values.mean()), float(low), float(high))
