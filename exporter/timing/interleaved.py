"""Prompts timed in turns, until the ratios of their times are certain."""

import statistics
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np

from ...engines.backends import backend as load_backend
from ...engines.bundle.folder import Bundle
from ...engines.decoding import Rows
from ...engines.generated import sample_prompt
from ...engines.processing import Processor

ROUNDS = range(7, 31)  # of a measurement, as many as its spread asks for
CERTAINTY = 0.025  # half the 95 % interval of a ratio of times, relative


class TimedPrompt:
    """A bundle on its backend with one prompt of the reference length, ready to be timed."""

    def __init__(
        self,
        runner: Any,
        bundle: Bundle,
        ids: list[int],
        embeds: np.ndarray,
        seconds: Sequence[float],
    ):
        self._runner, self._bundle = runner, bundle
        self._ids, self._embeds, self._seconds = ids, embeds, seconds

    @classmethod
    def of(cls, bundle: Bundle, text: int, backend: str = "auto") -> "TimedPrompt":
        """With `text` text tokens about generated pictures, at least those of the chat template."""
        layout = bundle.manifest.layouts[0]
        runner, processor = load_backend(backend, bundle).runner(bundle), Processor(bundle)
        prompt = sample_prompt(processor, layout)
        embeds = runner.vision(layout, processor.pixels(prompt))
        missing = max(0, layout.visual_tokens + text - len(prompt.input_ids))
        ids = [*prompt.input_ids, *[prompt.input_ids[-1]] * missing]
        embeds = embeds.reshape(1, layout.visual_tokens, -1)
        return cls(runner, bundle, ids, embeds, prompt.seconds)

    @property
    def text(self) -> int:
        """Text tokens."""
        return len(self._ids) - self._bundle.manifest.layouts[0].visual_tokens

    def run(self) -> float:
        """ms of one prefill."""
        manifest = self._bundle.manifest
        rows = Rows(self._runner, manifest, manifest.layouts[0], 1)
        start = perf_counter()
        rows.prefill([self._ids], self._embeds, [self._seconds])
        return (perf_counter() - start) * 1e3


def in_turns(prompts: Sequence[TimedPrompt], certainty: float = CERTAINTY) -> list[float]:
    """ms of each: run in turns, and each compared with the first of its own round.

    A machine that others share is slow for seconds at a time. That hits all of a round alike, so
    the ratios within rounds spread less than the times do. Rounds go on until they are certain.
    """
    for prompt in prompts:
        prompt.run()  # warms up
    times: list[list[float]] = []
    while len(times) < ROUNDS.stop - 1:
        times.append([p.run() for p in prompts])
        ratios = np.array(times) / np.array(times)[:, :1]
        if len(times) >= ROUNDS.start and max(map(spread, ratios.T)) <= certainty:
            break
    first = statistics.median(row[0] for row in times)
    return [float(first * r) for r in np.median(ratios, axis=0)]


def spread(values: np.ndarray) -> float:
    """Half the 95 % interval of the median by order statistics, relative to the median."""
    ordered, n = np.sort(values), len(values)
    reach = 0.98 * n**0.5  # the binomial's 1.96 deviations of sqrt(n) / 2
    low, high = max(0, int(n / 2 - reach)), min(n - 1, int(np.ceil(n / 2 + reach)))
    return float((ordered[high] - ordered[low]) / 2 / np.median(values))
