"""Prompts of requests that are let in, run into new rows of a pool. Letters: B batch, V visual tokens."""

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from ..answer import Timing
from ..bundle.tensors import visual_in
from ..decoding import Rows
from .job import Job
from .pool import Pool
from .prefixes import Prefix, Prefixes

if TYPE_CHECKING:
    from ..runtime import VLM


def run(vlm: "VLM", pool: Pool[Job], group: Sequence[Job], prefixes: Prefixes) -> np.ndarray:
    """What the rows of a group do not hold yet, into new rows -> logits [B, vocabulary]."""
    first = group[0]
    if first.new:
        return _resume(vlm, pool, first)
    if first.claim is not None and first.claim.held is not None and first.claim.length:
        return _go_on(vlm, pool, first, prefixes)
    return _prefill(vlm, pool, group, prefixes)


def _prefill(vlm: "VLM", pool: Pool[Job], group: Sequence[Job], prefixes: Prefixes) -> np.ndarray:
    """Whole prompts; those that make a prefix run that alone, and the rest on top of it."""
    for job in group:
        if job.unseen:  # who was to make its prefix has failed
            job.see(vlm, ahead=False)
    start = perf_counter()
    seen = _embedded(vlm, group, prefixes)
    ahead = [job.claim.length if job.claim else 0 for job in group]
    prompts = [
        replace(job.prompt, input_ids=job.prompt.input_ids[:length]) if length else job.prompt
        for job, length in zip(group, ahead, strict=True)
    ]
    layout = group[0].prompt.layout
    whole = max(len(job.prompt.input_ids) for job in group) - layout.visual_tokens
    pool.reserve([whole + v for v in visual_in(layout, vlm.manifest.language.layers)])
    rows, result, timing = vlm.prefill(prompts, seen, pool.space(len(group)))
    stages = vlm.stage_counts(layout, result)
    logits = np.array(result.logits)
    between = perf_counter()
    for place, job in enumerate(group):
        if job.claim is not None and job.claim.makes:
            made = _made(pool, rows, place, stages, seen[0], bool(ahead[place]))
            prefixes.keep(job.claim, made)
        if ahead[place]:
            logits[place] = _rest(pool, rows, place, job)
    more = (perf_counter() - between) * 1e3
    timing = replace(timing, prefill_ms=timing.prefill_ms + more)
    for job in group:
        _begin(vlm, job, stages, timing, start, prefixes)
    pool.join(rows, group)
    return logits


def _made(
    pool: Pool[Job], rows: Rows, place: int, stages: dict[int, int], embeds, caches: bool
) -> Prefix:
    """What to keep of the prefix that was run in a row of `pool.space`."""
    if caches:
        return Prefix(pool.copy(place, rows), stages)
    return Prefix(embeds=embeds[place : place + 1].copy())


def _rest(pool: Pool[Job], rows: Rows, place: int, job: Job) -> np.ndarray:
    """The rest of a prompt on top of its prefix -> logits [vocabulary].

    One row at a time, as it will be for those who go on from the prefix.
    """
    alone = rows.take([place], pool.space(1, place))
    logits = alone.run_rest(job.prompt.input_ids, job.prompt.seconds)
    rows.reached.put(place, alone.reached)
    return logits[0]


def _go_on(vlm: "VLM", pool: Pool[Job], job: Job, prefixes: Prefixes) -> np.ndarray:
    """The rest of a prompt on top of a kept prefix, for one request -> logits [1, vocabulary]."""
    assert job.claim is not None
    start = perf_counter()
    prefix = prefixes.use(job.claim)
    assert prefix.parked is not None
    rows = pool.unpark(prefix.parked, len(job.prompt.input_ids) - job.claim.length)
    logits = rows.run_rest(job.prompt.input_ids, job.prompt.seconds)
    timing = Timing(prefill_ms=(perf_counter() - start) * 1e3)
    job.reused = job.claim.length
    _begin(vlm, job, prefix.stages, timing, start, prefixes)
    pool.join(rows, [job])
    return logits


def _resume(vlm: "VLM", pool: Pool[Job], job: Job) -> np.ndarray:
    """New text on top of a kept conversation's row, for one request -> logits [1, vocabulary]."""
    assert job.conversation is not None and job.conversation.parked is not None
    start = perf_counter()
    rows = pool.unpark(job.conversation.parked, len(job.new))
    logits = rows.step([job.new])
    timing = Timing(prefill_ms=(perf_counter() - start) * 1e3)
    history = job.conversation.history
    job.conversation.parked = None
    job.stages, job.reused = history.stages, len(history.cached)
    history.cached += job.new
    job.begin(vlm, timing, start)
    pool.join(rows, [job])
    return logits


def _begin(
    vlm: "VLM",
    job: Job,
    stages: dict[int, int],
    timing: Timing,
    start: float,
    prefixes: Prefixes,
) -> None:
    """A job whose whole prompt is in its row."""
    job.stages = stages
    if job.conversation is not None:
        job.conversation.history.begin(job.prompt, stages)
    job.begin(vlm, timing, start)
    prefixes.release(job.claim)


def _embedded(
    vlm: "VLM", group: Sequence[Job], prefixes: Prefixes
) -> tuple[np.ndarray | None, Timing]:
    """Visual embeddings [B, V, D] of a group: kept, made ahead, or from the vision graph."""
    if not group[0].prompt.images:
        return None, Timing()
    parts = [_known(job, prefixes) for job in group]
    unknown = [job for job, part in zip(group, parts, strict=True) if part is None]
    spent = Timing()
    if unknown:
        embeds, spent = vlm.embed([j.prompt for j in unknown], [j.pixels for j in unknown])
        assert embeds is not None
        made = iter(embeds)
        parts = [next(made)[None] if part is None else part for part in parts]
    ahead = [job.embedded[1].vision_ms for job in group if job.embedded is not None]
    together = np.concatenate([part for part in parts if part is not None])
    return together, Timing(vision_ms=max([spent.vision_ms, *ahead]))


def _known(job: Job, prefixes: Prefixes) -> np.ndarray | None:
    """Visual embeddings [1, V, D] of a job that need no run."""
    if job.claim is not None and job.claim.held is not None:
        return prefixes.use(job.claim).embeds
    return None if job.embedded is None else job.embedded[0]
