"""What matched OIM steps joined: outputs of a vision graph, and whether others would have been better.

Which of two neighbours is nearer hangs on rounding where both are nearly as near. So another runner's choice
is held against the reference's similarities, and the reference goes on with what that one joined. Letters:
N tiles, R lines (rows or columns) of all tiles, n tokens of one before the step.
"""

from collections.abc import Iterator

import numpy as np

from .report import JoinReport
from .schedule import Merge, Schedule

ALONE = -2.0
"""Similarity of a token with none before it: the first of its line or window."""
ROUNDING = 1e-6
"""Of a cosine in float32."""


def join_names(schedule: Schedule) -> list[str]:
    """Outputs of a vision graph behind visual_embeds, float32 [N, lines, n] of each matched step.

    1 where a token is one with the token before it, else 0.
    """
    return [f"joins_{i}" for i, _ in enumerate(schedule.vision) if schedule.match]


def legal(joins: np.ndarray, own: np.ndarray, likeness: np.ndarray) -> bool:
    """Whether a step may join so: as many in each window as the reference, odd tokens to one side each.

    Args:
        joins: [R, n] of whoever is compared.
        own: [R, n] of the reference.
        likeness: float32 [R, n] of each token and the one before it; ALONE where there is none.
    """
    if joins.shape != own.shape or not np.isin(joins, (0, 1)).all():
        return False
    joined = joins > 0
    for window in _windows(likeness):
        left, right = _sides(joined[:, window], False)
        uneven = joined[:, window].sum(1) != own[:, window].sum(1)
        if joined[:, window.start].any() or (left & right).any() or uneven.any():
            return False
    return True


def compare_joins(
    merge: Merge,
    joins: np.ndarray,
    own: np.ndarray,
    likeness: np.ndarray,
    tie: float,
    overlap: float,
) -> JoinReport:
    """A step's choice against the reference's similarities of the same tokens.

    Args:
        merge: the step.
        joins: [R, n] of whoever is compared.
        own: [R, n] of the reference, the best by its likeness.
        likeness: float32 [R, n] of each token and the one before it; ALONE where there is none.
        tie: distances of unit tokens that are nearer to each other tie.
        overlap: least share of equal choices, ties aside.
    """
    if not legal(joins, own, likeness):
        return JoinReport(layer=merge.layer, axis=merge.axis, joins=int(own.sum()), passed=False)
    found, odds = np.zeros(3, np.int64), 0
    for window in _windows(likeness):
        near = np.stack(_sides(likeness[:, window], ALONE))
        mine, best = (np.stack(_sides(x[:, window] > 0, False)) for x in (joins, own))
        if not best.any():
            continue
        found += _compare_window(near, mine, best, tie)
        odds += near[0].size
    same, excused, alike = found.tolist()
    total = int(own.sum())
    decided = same / max(total - excused, 1)
    return JoinReport(
        layer=merge.layer,
        axis=merge.axis,
        joins=total,
        overlap=same / max(total, 1),
        overlap_without_ties=decided if total > excused else 1.0,
        ties=excused,
        alike=alike / max(odds, 1),
        passed=total == excused or decided >= overlap,
    )


def _compare_window(
    near: np.ndarray, mine: np.ndarray, best: np.ndarray, tie: float
) -> tuple[int, int, int]:
    """Equal choices, differences that are ties, and odd tokens that tie with the last one joined.

    Args:
        near: similarity of each odd token to its left and its right, [2, R, odd tokens].
        mine: which of them are joined.
        best: the same of the reference.
        tie: see `compare_joins`.
    """
    nearest = near.max(0)
    last = np.where(best.any(0), nearest, np.inf).min(1, keepdims=True)
    edge = _tied(nearest, last, tie)
    side = np.where(mine[0], near[0], near[1])
    straight = side >= nearest
    fine = straight | _tied(side, nearest, tie)
    both = mine.any(0) & best.any(0)
    out, instead = best.any(0) & ~both, mine.any(0) & ~both
    # a tie is between two: what left and what came in its place
    swaps = np.minimum((out & edge).sum(1), (instead & edge & fine).sum(1))
    turned = both & ~straight & fine
    return int((both & straight).sum()), int(swaps.sum() + turned.sum()), int(edge.sum())


def _tied(a: np.ndarray, b: np.ndarray, tie: float) -> np.ndarray:
    """Whether two similarities are decided by rounding: of the tokens, or of the cosine itself.

    Rounding turns a token by an angle, which changes the distance of two by as much, and their cosine by
    less the nearer they are.
    """
    apart = [np.sqrt(np.maximum(0, 2 - 2 * x.astype(np.float64))) for x in (a, b)]
    return (np.abs(apart[0] - apart[1]) <= tie) | (np.abs(a - b) <= ROUNDING)


def _windows(likeness: np.ndarray) -> Iterator[slice]:
    """The parts of a line inside which neighbours may be joined."""
    starts = np.flatnonzero(likeness[0] == ALONE)
    for first, end in zip(starts, [*starts[1:], likeness.shape[1]], strict=True):
        yield slice(int(first), int(end))


def _sides(window: np.ndarray, none: float) -> tuple[np.ndarray, np.ndarray]:
    """Of each odd token what is said of it and its left, and of it and its right, [R, odd tokens]."""
    left, right = window[:, 1::2], window[:, 2::2]
    missing = left.shape[1] - right.shape[1]
    return left, np.pad(right, ((0, 0), (0, missing)), constant_values=none)
