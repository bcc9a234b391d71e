"""Steps for a ratio of the tower: small, early, windows alike, counted by hand."""

import itertools
from dataclasses import replace
from fractions import Fraction

import pytest

from luvc.engines.bundle.schedule import Merge, Schedule
from luvc.errors import LuvcError
from luvc.exporter.planning.defaults import DEFAULTS
from luvc.exporter.planning.flops import DecoderShape, EncoderShape
from luvc.exporter.planning.grid import Grid, group_for, thinned, windows
from luvc.exporter.planning.problem import Problem, check_schedule
from luvc.exporter.planning.solver import solve
from luvc.exporter.planning.tower import (
    largest_tower_ratio,
    step_layers,
    tower_choices,
    tower_steps,
    tower_steps_within,
)

D = 192
MLP, PATCH = 768, 768
DECODER = DecoderShape(8, 256, 4, 2, 64, 768, 2000)


def problem(grid, layers=8, **more):
    shape = EncoderShape(layers, D, MLP, 1, PATCH, 4, (4 * D, 256, 256), **more)
    return Problem(DECODER, shape, grid, Grid(2, 2), tiles=1, text_tokens=4)


SMALL, FINE = problem(Grid(12, 12)), problem(Grid(24, 24))
# 32 rows are four windows of 8, 20 columns two of them and one of 4
WINDOWS = problem(Grid(32, 20), 32, window=64, full=(7, 15, 23, 31))
RESTORED = replace(DEFAULTS, restore=True, match=True)


def both(layer, group):
    return tuple(Merge(layer=layer, axis=axis, group=group) for axis in ("width", "height"))


def grids(p, merges, match=True):
    """The grid in each layer."""
    schedule = Schedule(vision=merges, restore=True, match=match)
    return [(g.h, g.w) for g in p.grids(schedule)]


def ratio(p, merges, match=True):
    return p.ratios(Schedule(vision=merges, restore=True, match=match)).vision


def by_hand(tokens, steps, match):
    """FLOPs of a tower of these tokens in each layer, and of (before, after) of each step."""
    work = 2 * tokens[0] * PATCH * D
    for n in (count + 1 for count in tokens):  # CLS
        work += 2 * n * (4 * D * D + 2 * D * MLP) + 4 * n * n * D
    work += 2 * (tokens[0] / 4) * (4 * D * 256 + 256 * 256)
    for before, after in steps:  # means; similarities; the difference and the sum at the exit
        work += D * (2 * (before - after) + 5 * before * match + before + after)
    return work


@pytest.mark.parametrize("match", [False, True])
def test_a_towers_ratio_counts_layers_steps_and_the_way_back(match):
    merges = (*both(1, 6), *both(3, 10))
    assert grids(SMALL, merges) == [(12, 12)] + 2 * [(10, 10)] + 5 * [(9, 9)]
    steps = [(144, 120), (120, 100), (100, 90), (90, 81)]
    compressed = by_hand([144, *2 * [100], *5 * [81]], steps, match)
    wanted = by_hand([144] * 8, [], False) / compressed
    assert ratio(SMALL, merges, match) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("p", "merges"), [(SMALL, (*both(1, 6), *both(3, 10))), (FINE, (*both(1, 6), *both(3, 5)))]
)
def test_what_was_measured_is_among_the_choices(p, merges):
    """12x12: 10 before layer 1, 9 before layer 3. 24x24: 20 before layer 1, 16 before layer 3."""
    assert merges in [choice.merges for choice in tower_choices(p, True)]


@pytest.mark.parametrize("p", [SMALL, FINE, WINDOWS], ids=["small", "fine", "windows"])
def test_every_choice_takes_little_early_and_of_all_windows_alike(p):
    layers = step_layers(p.encoder.layers)
    choices = tower_choices(p, True)
    assert choices and layers == ((1, 3, 5) if p.encoder.layers == 8 else (4, 12, 20))
    for choice in choices:
        schedule = Schedule(vision=choice.merges, restore=True, match=True)
        found = p.step_grids(schedule)
        assert {m.layer for m in choice.merges} == set(layers[: choice.steps])
        for axis in ("width", "height"):
            lengths = [g.length(axis) for g in found]
            spans = windows(lengths[0], 8) if p is WINDOWS else lengths[:1]
            for before, after in itertools.pairwise(lengths):
                assert Fraction(before - after, before) <= choice.largest <= Fraction(1, 5)
                spans = thinned(tuple(spans), before - after)
                assert len(set(spans[:-1])) <= 1  # all whole windows are alike
            assert 2 * lengths[-1] > lengths[0]
        assert choice.ratio == ratio(p, choice.merges) > 1


@pytest.mark.parametrize("p", [SMALL, FINE, WINDOWS], ids=["small", "fine", "windows"])
@pytest.mark.parametrize("asked", [1.1, 1.3, 1.45, 1.6])
def test_the_nearest_above_a_ratio(p, asked):
    found = ratio(p, tower_steps(p, asked, True))
    possible = [choice.ratio for choice in tower_choices(p, True) if choice.ratio >= asked]
    assert asked <= found <= max(asked * 1.02, min(possible))
    below = ratio(p, tower_steps_within(p, asked, True))
    assert below == max([1.0, *(c.ratio for c in tower_choices(p, True) if c.ratio <= asked)])


def test_a_ratio_out_of_reach_names_the_largest():
    largest = largest_tower_ratio(SMALL, True)
    with pytest.raises(LuvcError, match=r"--tower-ratio 3x is not feasible .* gives 1\.\d+x"):
        tower_steps(SMALL, 3.0, True)
    assert tower_steps(SMALL, largest, True)
    shallow = problem(Grid(12, 12), layers=1)
    assert largest_tower_ratio(shallow, True) == 1 and tower_steps(shallow, 1.0, True) == ()
    with pytest.raises(LuvcError, match="gives 1x"):
        tower_steps(shallow, 1.1, True)


def test_the_spu_makes_all_of_the_ratio():
    options = replace(RESTORED, tower_ratio=1.4)
    found = solve(SMALL, 2.0, options)
    plain = solve(SMALL, 2.0)
    assert found.restore and found.match and found.language == plain.language
    assert not found.lasting and SMALL.leaving(found) == SMALL.grid
    assert SMALL.ratios(found).prefill == SMALL.ratios(plain).prefill
    assert SMALL.ratios(found).vision >= 1.4
    alone = solve(SMALL, 1.0, options)
    assert alone.vision == found.vision and not alone.language
    assert SMALL.ratios(alone).prefill == 1


def test_a_share_is_the_towers_ratio_at_most():
    found = solve(SMALL, 2.0, replace(RESTORED, oim_share=0.5))
    assert found.vision and SMALL.ratios(found).vision <= 2**0.5
    assert not solve(SMALL, 2.0, replace(RESTORED, oim_share=0.01)).restore  # nothing is that small


def test_the_projectors_multiple_binds_only_what_lasts():
    steps = both(1, 12)  # 12 to 11, where blocks of two need 12
    assert check_schedule(SMALL, Schedule(vision=steps, restore=True)).restore
    with pytest.raises(LuvcError, match="changes nothing"):
        check_schedule(SMALL, Schedule(vision=steps))
    with pytest.raises(LuvcError, match="there are none: leave it out"):
        check_schedule(SMALL, Schedule(restore=True))


def test_windows_that_hold_too_few_pairs_are_refused():
    odd = problem(Grid(28, 28), 32, window=49, full=(31,))  # four windows of 7: three pairs each
    schedule = Schedule(vision=(Merge(layer=1, axis="width", group=2),), match=True)
    with pytest.raises(LuvcError, match=r"take 14 of 28 tokens, .* of 7 tokens hold 12 pairs"):
        check_schedule(odd, schedule)
    assert check_schedule(odd, schedule.model_copy(update={"match": False}))


def test_groups_for_lengths():
    for n in range(2, 40):
        for left in range(1, n):
            group, able = group_for(n, left), [g for g in range(2, n + 1) if n - n // g == left]
            assert group == max(able, default=None)


@pytest.mark.parametrize(
    ("spans", "gone", "left"),
    [
        ((8, 8, 8, 8), 4, (7, 7, 7, 7)),
        ((8, 8, 4), 5, (6, 6, 3)),
        ((8, 8), 3, (6, 7)),
        ((7, 7, 6), 9, (4, 4, 3)),
        ((1, 1, 8), 2, (1, 1, 6)),
        ((12,), 2, (10,)),
    ],
)
def test_windows_lose_in_proportion(spans, gone, left):
    assert thinned(spans, gone) == left
