"""Batches in parts, one after the other: the memory of a run follows its part; measured: docs/cpu.md.

A processor that multiplies a thousand rows is as busy as with eight thousand, and rows do not see each other:
what a part gives is what the whole batch gives. Where a part is one prompt, ONNX Runtime multiplies its last
token by the kernel for single rows: logits are those of the prompt alone, the batch's up to rounding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from ...bundle.layout import Layout
from ...bundle.tensors import StageResult
from ..base import PrefillFeed, PrefillResult

TOKENS = 2048
"""Of a part, unless one prompt or one image alone has more."""


def parts_of_prompts(feed: PrefillFeed) -> list[tuple[int, PrefillFeed]]:
    """The rows of a batch in parts, each with the number of its first row."""
    rows, length = feed.input_ids.shape
    count = max(1, TOKENS // length)
    return [
        (i, replace(feed, **{name: a[i : i + count] for name, a in feed.tensors.items()}))
        for i in range(0, rows, count)
    ]


def whole_batch(results: Sequence[PrefillResult]) -> PrefillResult:
    """The results of all parts as those of the whole batch."""
    stages = {}
    for layer in results[0].stages:
        found = [result.stages[layer] for result in results]
        stages[layer] = StageResult(
            np.concatenate([x.energies for x in found]), np.concatenate([x.kept for x in found])
        )
    return PrefillResult(np.concatenate([r.logits for r in results]), stages)


def parts_of_images(layout: Layout, pixel_values: np.ndarray) -> Iterator[np.ndarray]:
    """pixel_values of whole images [N, ...] in parts, in their order."""
    of_image = layout.pixel_shape[0]
    images = max(1, TOKENS // (of_image * prod(layout.grid)))
    for i in range(0, len(pixel_values), images * of_image):
        yield pixel_values[i : i + images * of_image]
