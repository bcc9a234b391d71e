"""What matched steps join, held against distances that numpy computes in float64."""

import numpy as np
import pytest

from luvc.engines.bundle.joins import ALONE, compare_joins, join_names, legal
from luvc.engines.bundle.schedule import Merge, Schedule
from luvc.engines.tolerance import TOLERANCES

STEP = Merge(layer=1, axis="width", group=4)
HALF = TOLERANCES["float16"]
SPAN = 8


def rounded(x, dtype):
    """Numbers of a half precision; bfloat16 is what is left of a float32 without its lower 16 bits."""
    if dtype == "float16":
        return x.astype(np.float16).astype(np.float64)
    bits = x.astype(np.float32).view(np.uint32) + np.uint32(0x8000)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)


def seen(x, spans):
    """Cosines of tokens [R, n, D] with those before them."""
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    found = np.full(x.shape[:2], ALONE)
    found[:, 1:] = (unit[:, :-1] * unit[:, 1:]).sum(-1)
    found[:, [0, *np.cumsum(spans[:-1])]] = ALONE
    return found.astype(np.float32)


def joined(likeness, spans, gone):
    """The most similar neighbours, odd token by odd token: `gone` of each span."""
    joins = np.zeros(likeness.shape, np.float32)
    for row, line in enumerate(likeness):
        for first, span, less in zip(np.cumsum([0, *spans[:-1]]), spans, gone, strict=True):
            places = []
            for odd in range(first + 1, first + span, 2):
                behind = line[odd + 1] if odd + 1 < first + span else ALONE
                places.append(max((line[odd], 1, odd), (behind, 0, odd + 1)))
            for *_, place in sorted(places, reverse=True)[:less]:
                joins[row, place] = 1
    return joins


def compared(likeness, joins, own, tolerance=HALF):
    return compare_joins(STEP, joins, own, likeness, tolerance.tie, tolerance.overlap)


@pytest.mark.parametrize("spans, gone", [((9,), (2,)), ((8, 8, 4), (2, 2, 1)), ((5, 3), (2, 0))])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_what_half_precision_joins_passes(dtype, spans, gone):
    """Plain lines, whose neighbours are nearly as near: half precision joins others, ties aside none."""
    random = np.random.default_rng(3)
    x = random.normal(size=(400, 1, 32)) + 0.004 * random.normal(size=(400, sum(spans), 32))
    near = seen(x, spans)
    own, other = (joined(found, spans, gone) for found in (near, seen(rounded(x, dtype), spans)))
    assert (own != other).any(1).sum() > 10, "or nothing is tested here"
    report = compared(near, other, own, TOLERANCES[dtype])
    assert report.passed and report.ties and report.overlap < 1, report
    assert report.joins == 400 * sum(gone)
    exact = compared(near, other, own, TOLERANCES["float32"])
    assert exact.alike < report.alike, "a tie is wider where precision is less"


def line_of(distances):
    """Tokens whose neighbours are so far apart, as unit vectors in a plane."""
    turns = np.cumsum([0.0, *(2 * np.arcsin(d / 2) for d in distances)])
    return np.stack([np.cos(turns), np.sin(turns)], -1)[None]


APART = [0.3, 0.9, 0.31, 0.9, 0.8, 0.9, 0.9]
"""Neighbours of 8 tokens: 1 joins 0 before all others, 3 joins 2 nearly as soon."""


@pytest.mark.parametrize("place, passes", [(3, True), (5, False), (6, False)])
def test_only_a_near_tie_is_excused(place, passes):
    """The last one joined is 1, at 0.30: 3 at 0.31 may take its place, 5 at 0.8 may not."""
    near = seen(line_of(APART), (SPAN,))
    own = joined(near, (SPAN,), (1,))
    assert own[0].tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    other = np.zeros_like(own)
    other[0, place] = 1
    report = compared(near, other, own)
    assert report.passed == passes and report.ties == int(passes) and report.overlap == 0
    assert report.alike == 0.5  # 1 and 3 of four odd tokens
    assert not compared(near, other, own, TOLERANCES["float32"]).passed


@pytest.mark.parametrize("behind, passes", [(0.31, True), (0.5, False)])
def test_a_side_is_a_near_tie_too(behind, passes):
    """Token 1 joins 0; to join 2 it must be nearly as near to it."""
    near = seen(line_of([0.3, behind, *APART[1:-1]]), (SPAN,))
    own = joined(near, (SPAN,), (1,))
    other = np.roll(own, 1, 1)
    report = compared(near, other, own)
    assert report.passed == passes and report.overlap == 0


def test_nearer_tokens_are_told_apart_more_finely():
    """Cosines that differ by 2e-4: at a distance of 0.02 the tokens are another matter, at 1 they are not."""
    for far, passes in ((0.001, False), (1.0, True)):
        near = np.full((1, SPAN), 0.0, np.float32)
        near[0, 0], near[0, 1] = ALONE, 1 - far**2 / 2
        near[0, 3] = near[0, 1] - np.float32(5e-4)
        other = np.zeros((1, SPAN), np.float32)
        other[0, 3] = 1
        own = joined(near, (SPAN,), (1,))
        assert own[0, 1] == 1
        assert compared(near, other, own).passed == passes


ILLEGAL = {
    "one more": [0, 1, 0, 1, 0, 1, 0, 0],
    "one less": [0, 1, 0, 0, 0, 0, 0, 0],
    "the first of a line": [1, 0, 0, 1, 0, 0, 0, 0],
    "to both sides": [0, 1, 1, 0, 0, 0, 0, 0],
    "half a token": [0, 1, 0, 0.5, 0.5, 0, 0, 0],
    "no number": [0, 1, 0, np.nan, 0, 0, 0, 1],
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_what_no_step_joins_fails(name):
    near = seen(line_of(APART), (SPAN,))
    own = joined(near, (SPAN,), (2,))
    joins = np.array([ILLEGAL[name]], np.float32)
    assert legal(own, own, near) and not legal(joins, own, near)
    report = compared(near, joins, own)
    assert not report.passed and report.overlap == 0


def test_windows_lose_what_they_lose():
    near = seen(np.random.default_rng(1).normal(size=(1, 8, 16)), (4, 4))
    own = joined(near, (4, 4), (1, 1))
    assert not legal(np.array([[0, 1, 0, 1, 0, 0, 0, 0]], np.float32), own, near)
    assert not legal(np.array([[0, 1, 0, 0, 1, 0, 0, 0]], np.float32), own, near)


def test_only_matched_steps_tell():
    steps = (STEP, STEP.model_copy(update={"axis": "height"}))
    assert join_names(Schedule(vision=steps, match=True)) == ["joins_0", "joins_1"]
    assert join_names(Schedule(vision=steps)) == []
