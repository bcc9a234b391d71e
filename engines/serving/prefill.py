"""Prompts of requests that are let in, run into new rows of a pool. Letters: B batch, V visual tokens."""

from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from ..answer import Timing
from .job import Job
from .pool import Pool

if TYPE_CHECKING:
    from ..runtime import VLM


def prefill(vlm: "VLM", pool: Pool[Job], group: Sequence[Job]) -> np.ndarray:
    """Whole prompts into new rows -> logits [B, vocabulary]."""
    start = perf_counter()
    seen = _embedded(vlm, group)
    prompts = [job.prompt for job in group]
    rows, result, timing = vlm.prefill(prompts, seen, pool.space(len(group)))
    stages = vlm.stage_counts(pool.layout, result)
    for job in group:
        job.stages = stages
        if job.conversation is not None:
            job.conversation.history.begin(job.prompt, stages)
        job.begin(vlm, timing, start)
    pool.join(rows, group)
    return result.logits


def resume(vlm: "VLM", pool: Pool[Job], group: Sequence[Job]) -> np.ndarray:
    """New text on top of a kept conversation's row, for one request -> logits [1, vocabulary]."""
    (job,) = group
    assert job.conversation is not None and job.conversation.parked is not None
    start = perf_counter()
    rows = pool.unpark(job.conversation.parked)
    logits = rows.step([job.new])
    timing = Timing(prefill_ms=(perf_counter() - start) * 1e3)
    history = job.conversation.history
    job.conversation.parked = None
    job.stages, job.reused = history.stages, len(history.cached)
    history.cached += job.new
    job.begin(vlm, timing, start)
    pool.join(rows, group)
    return logits


def _embedded(vlm: "VLM", group: Sequence[Job]) -> tuple[np.ndarray | None, Timing]:
    """Visual embeddings [B, V, D] of a group, from the vision graph or as they were made ahead."""
    parts = [job.embedded for job in group if job.embedded is not None]
    if parts:  # then of all of them
        slowest = max(timing.vision_ms for _, timing in parts)
        return np.concatenate([e for e, _ in parts if e is not None]), Timing(vision_ms=slowest)
    return vlm.embed([j.prompt for j in group], [j.pixels for j in group])
