"""Two runners, one feed: how far a backend is from PyTorch, per stage, and whether that passes.

Errors are relative to the stage's scale (largest magnitude of the reference). A kept token may
differ only where the scores decide nothing: it and what is kept in its place are inside the tie margin
around the k-th score. After each stage the reference goes on with the tokens the backend kept, so one
tie does not hide what follows; so it does after each matched OIM step with what the backend joined.
Letters: B batch, V visual tokens, V_l those entering layer l, k kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import LuvcError
from .backends.base import PrefillResult, Runner, VisionResult
from .bundle.joins import compare_joins
from .bundle.layout import Layout
from .bundle.manifest import Manifest
from .bundle.report import JoinReport, KeptReport, Report, StageReport
from .bundle.tensors import cache_names
from .decoding import Rows
from .generated_pictures import generated_prompt
from .prompt.processing import Processor
from .tolerance import TOLERANCES, Tolerance

QUESTIONS = (
    "Describe the picture.",
    "What is in the upper left corner, and which colours does it have?",
)


@dataclass
class _Run:
    seen: VisionResult | None
    rows: Rows
    result: PrefillResult
    caches: dict[str, np.ndarray]
    tokens: list[list[int]]
    gaps: list[list[float]]


def validate(
    manifest: Manifest,
    processor: Processor,
    layout: Layout,
    reference: Runner,
    candidate: Runner,
    backend: str,
    tolerance: Tolerance | None = None,
) -> Report:
    """Compare two runners on a ragged batch of two prompts, about generated pictures where there are any.

    Args:
        manifest: of the bundle.
        processor: of the bundle.
        layout: the layout to run.
        reference: PyTorch in float32.
        candidate: the backend.
        backend: its name, for the report.
        tolerance: what passes; default by the bundle's dtype.
    """
    tolerance = tolerance or TOLERANCES[manifest.dtype]
    prompts = [generated_prompt(processor, layout, q, i) for i, q in enumerate(QUESTIONS)]
    pixels = np.concatenate([processor.pixels(p) for p in prompts]) if layout.images else None
    ours = _run(candidate, manifest, layout, prompts, pixels, tolerance.tokens)
    chosen = {layer: stage.kept for layer, stage in ours.result.stages.items()}
    given = prompts, pixels, tolerance.tokens, ours.seen.joins if ours.seen else ()
    theirs = _run(reference, manifest, layout, *given, kept=chosen)
    kept = tuple(_compare_kept(theirs.result, ours.result, tolerance))
    stages, joined = list[StageReport](), list[JoinReport]()
    if theirs.seen and ours.seen:
        joined += _compare_joined(layout, theirs.seen, ours.seen, tolerance)
        embeds = theirs.seen.embeds, ours.seen.embeds
        stages += _compare_embeds(manifest.language.hidden, *embeds, tolerance)
    stages += _compare_stages(manifest, layout, prompts, theirs, ours, tolerance)
    stages.append(_compare("logits", theirs.result.logits, ours.result.logits, tolerance, None))
    equal, tie = _compare_tokens(theirs, ours, tolerance)
    total = sum(map(len, theirs.tokens))
    return Report(
        layout=layout.name,
        backend=backend,
        dtype=manifest.dtype,
        stages=tuple(stages),
        kept=kept,
        greedy_tokens=total,
        greedy_equal=equal,
        greedy_tie=tie,
        compared=manifest.language.layers,
        joined=tuple(joined),
        passed=all(s.passed for s in (*stages, *kept, *joined)) and (equal == total or tie),
    )


def _run(
    runner: Runner, manifest: Manifest, layout: Layout, prompts, pixels, tokens, joins=(), **options
):
    """Vision (with what is joined), prefill (with the runner's options), greedy tokens -> _Run."""
    seen, embeds = None, None
    if pixels is not None:
        seen = runner.vision_result(layout, pixels, **({"joins": joins} if joins else {}))
        embeds = seen.embeds.reshape(len(prompts), layout.visual_tokens, -1)
    rows = Rows(runner, manifest, layout, len(prompts))
    result = rows.prefill(
        [p.input_ids for p in prompts], embeds, [p.seconds for p in prompts], **options
    )
    caches = {n: c.astype(np.float32) for n, c in runner.read_caches(rows.caches).items()}
    run = _Run(seen, rows, result, caches, [[] for _ in prompts], [[] for _ in prompts])
    logits = result.logits
    room = min(rows.room(i) for i in range(len(prompts)))
    for n in range(min(tokens, room)):
        for row, line in enumerate(logits):
            best = np.partition(line, -2)[-2:]
            run.gaps[row].append(float((best[1] - best[0]) / max(np.abs(line).max(), 1e-9)))
            run.tokens[row].append(int(line.argmax()))
        if n + 1 < min(tokens, room):
            logits = rows.step([t[-1:] for t in run.tokens])
    return run


def _compare(
    name: str, reference, candidate, tolerance: Tolerance, visual: int | None
) -> StageReport:
    a = np.asarray(reference, np.float64).ravel()
    b = np.asarray(candidate, np.float64).ravel()
    scale, error = max(float(np.abs(a).max()), 1e-30), float(np.abs(a - b).max())
    norms = max(float(np.linalg.norm(a)), 1e-30), max(float(np.linalg.norm(b)), 1e-30)
    cosine, ratio = float(a @ b) / (norms[0] * norms[1]), norms[1] / norms[0]
    passed = (
        bool(np.isfinite(b).all())
        and error / scale <= tolerance.error
        and cosine >= tolerance.cosine
        and abs(ratio - 1) <= tolerance.norm
    )
    return StageReport(
        name=name,
        visual=visual,
        max_abs_error=error,
        relative_error=error / scale,
        cosine=cosine,
        norm_ratio=ratio,
        passed=passed,
    )


def _compare_embeds(
    hidden: int, reference: np.ndarray, candidate: np.ndarray, tolerance: Tolerance
) -> Iterator[StageReport]:
    """Visual embeddings [B, V, multiple of D], and apart from them the score that may ride behind."""
    width = reference.shape[-1] // hidden * hidden
    yield _compare("vision", reference[..., :width], candidate[..., :width], tolerance, None)
    if reference.shape[-1] > width:  # in parts that add up
        theirs, ours = (x[..., width:].astype(np.float32).sum(-1) for x in (reference, candidate))
        yield _compare("tower's score", theirs, ours, tolerance, None)


def _compare_joined(
    layout: Layout, reference: VisionResult, candidate: VisionResult, tolerance: Tolerance
) -> Iterator[JoinReport]:
    """What each would join of the same tokens, step by step; nothing where groups are fixed."""
    told, made = len(candidate.joins), len(reference.own)
    if not told:
        return
    if told != made:
        raise LuvcError(
            f"the vision graph of {layout.name} tells what {told} steps join, and {made} match: export the "
            "bundle again"
        )
    steps = zip(candidate.joins, reference.own, reference.likeness, strict=True)
    for merge, (joins, own, likeness) in zip(layout.schedule.vision, steps, strict=True):
        n, shape = own.shape[-1], own.shape
        # of another shape it stays as it is: no step joins so
        lines = (x.reshape(-1, n) if x.shape == shape else x for x in (joins, own, likeness))
        yield compare_joins(merge, *lines, tie=tolerance.tie, overlap=tolerance.overlap)


def _compare_kept(
    reference: PrefillResult, candidate: PrefillResult, tolerance: Tolerance
) -> Iterator[KeptReport]:
    """What each would keep of the same tokens, as ordinals of the stage."""
    for layer, a in reference.stages.items():
        b = candidate.stages[layer]
        shared = 0
        excused = 0
        alike = 0
        for row in range(len(a.kept)):
            x = set(a.kept[row].tolist())
            y = set(b.kept[row].tolist())
            near = _near(a.energies[row], a.kept[row], tolerance.tie)
            shared += len(x & y)
            # a tie is between two: what left and what came in its place
            excused += min(sum(bool(near[n]) for n in gone) for gone in (x - y, y - x))
            alike += int(near.sum())
        total = a.kept.size
        decided = total - excused
        yield KeptReport(
            layer=layer,
            keep=a.kept.shape[1],
            overlap=shared / total,
            overlap_without_ties=shared / max(decided, 1),
            ties=excused,
            passed=shared / max(decided, 1) >= tolerance.overlap,
            alike=alike / a.energies.size,
        )


def _near(scores: np.ndarray, kept: np.ndarray, tie: float) -> np.ndarray:
    """Which scores [V] are within the tie margin of the last one kept.

    Scores have any sign and offset, so the margin is a share of the last one's size, or of the median size
    where that is larger.
    """
    threshold = scores[kept].min()
    size = max(abs(threshold), np.median(np.abs(scores)))
    return np.abs(scores - threshold) <= tie * size


def _compare_stages(
    manifest: Manifest, layout: Layout, prompts, theirs: _Run, ours: _Run, tolerance
):
    """Keys and values (or states) that each stage's layers keep, padding aside."""
    kinds, keeping = manifest.language.layer_types, manifest.language.caching
    for stage in layout.stages:
        last = min(stage.last, keeping - 1)
        names = cache_names({i: kinds[i] for i in range(stage.first, last + 1)})
        a, b = [], []
        for row, prompt in enumerate(prompts):
            filled = len(prompt.input_ids) - layout.visual_tokens + stage.visual
            for name in names:
                a.append(theirs.caches[name][row][:, :filled].ravel())
                b.append(ours.caches[name][row][:, :filled].ravel())
        name = f"layers {stage.first}-{last}"
        yield _compare(name, np.concatenate(a), np.concatenate(b), tolerance, stage.visual)


def _compare_tokens(theirs: _Run, ours: _Run, tolerance: Tolerance) -> tuple[int, bool]:
    """Equal greedy tokens, and whether every first difference is a tie of the reference's logits."""
    equal, tie = 0, True
    for a, b, gaps in zip(theirs.tokens, ours.tokens, theirs.gaps, strict=True):
        same = np.equal(a, b)
        first = int(np.argmin(same)) if not same.all() else len(a)
        equal += first
        if first < len(a) and gaps[first] > tolerance.logit_tie:
            tie = False
    return equal, tie
