"""Time measured side by side: rounds in which everything runs once, in changing order.

A machine that others share is slow for seconds at a time. That hits all of a round alike, so ratios
within rounds spread less than the times do; and since another one begins each round, none is faster by
what ran before it. Imports neither PyTorch nor a backend.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
ROUNDS = range(7, 31)  # of a measurement, as many as its spread asks for
CERTAINTY = 0.025  # half the 95 % interval of a ratio of times, relative


def interleaved(measured: Sequence[Callable[[int], T]], rounds: Iterable[int]) -> Iterator[list[T]]:
    """Run everything once in each round; round n begins with number n of `measured`.

    Args:
        measured: what runs, each given the number of the round.
        rounds: their numbers, taken one by one as a round begins.

    Yields:
        What the runs of a round returned, in the order of `measured`.
    """
    for n in rounds:
        start = n % len(measured)
        order = [*range(start, len(measured)), *range(start)]
        found = {i: measured[i](n) for i in order}
        yield [found[i] for i in range(len(measured))]


def until_certain(
    measured: Sequence[Callable[[], float]], certainty: float = CERTAINTY
) -> list[float]:
    """ms of each, compared with the first of its own round, until these ratios are certain.

    Args:
        measured: what runs, returning ms; each is run once before, to warm up.
        certainty: relative, of every ratio's median (see `spread`).
    """
    for run in measured:
        run()
    times: list[list[float]] = []
    ratios = np.ones((0, len(measured)))
    for found in interleaved([_numbered(run) for run in measured], range(ROUNDS.stop - 1)):
        times.append(found)
        ratios = np.array(times) / np.array(times)[:, :1]
        if len(times) >= ROUNDS.start and max(map(spread, ratios.T)) <= certainty:
            break
    first = statistics.median(row[0] for row in times)
    return [float(first * r) for r in np.median(ratios, axis=0)]


def _numbered(run: Callable[[], T]) -> Callable[[int], T]:
    return lambda n: run()


def spread(values: np.ndarray) -> float:
    """Half the 95 % interval of the median by order statistics, relative to the median."""
    ordered, n = np.sort(values), len(values)
    reach = 0.98 * n**0.5  # the binomial's 1.96 deviations of sqrt(n) / 2
    low, high = max(0, int(n / 2 - reach)), min(n - 1, int(np.ceil(n / 2 + reach)))
    return float((ordered[high] - ordered[low]) / 2 / np.median(values))


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, minimum, maximum and the values themselves, in the order they were measured."""
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "samples": [round(v, 3) for v in values],
    }


def summaries(
    samples: Sequence[Mapping[str, Any]], names: Iterable[str]
) -> dict[str, dict[str, Any] | None]:
    """A summary of each figure over the rounds; None where no round has it."""
    found: dict[str, dict[str, Any] | None] = {}
    for name in names:
        values = [s[name] for s in samples if s.get(name) is not None]
        found[name] = summary(values) if values else None
    return found
