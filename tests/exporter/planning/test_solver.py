"""The solver and the cost model: achieved ratios, refusals, schedules of one's own."""

import itertools
import math
import re
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luvc.engines.bundle.schedule import Merge, Prune, Schedule, stages_of
from luvc.errors import LuvcError
from luvc.exporter.planning import flops
from luvc.exporter.planning.defaults import DEFAULTS, PAPER, SolverOptions
from luvc.exporter.planning.grid import Grid, merge_grid, merged_length
from luvc.exporter.planning.problem import Problem, check_schedule
from luvc.exporter.planning.solver import smooth_counts, solve
from luvc.exporter.planning.stages import stage_layers, without_stage
from luvc.exporter.typed import parse_ratio


def encoder(hidden, layers, out, shuffle=4):
    return flops.EncoderShape(layers, hidden, 4 * hidden, 1, 588, shuffle, (hidden * shuffle, out))


HIGH = PAPER.with_score(band="high", cutoff=0.05)
SHAPES = {
    "InternVL3-1B": (flops.DecoderShape(24, 896, 14, 2, 64, 4864, 151674), (1024, 24, 896), 32),
    "InternVL2.5-8B": (
        flops.DecoderShape(32, 4096, 32, 8, 128, 14336, 92553),
        (1024, 24, 4096),
        32,
    ),
    "demo": (flops.DecoderShape(8, 256, 4, 2, 64, 512, 1024), (128, 8, 256), 24),
}


def problem(name: str, tiles: int = 1) -> Problem:
    decoder, tower, side = SHAPES[name]
    return Problem(decoder, encoder(*tower), Grid(side, side), Grid(2, 2), tiles)


def independent_flops(p: Problem, schedule: Schedule) -> float:
    """Prefill FLOPs counted another way: layer by layer from the weights' shapes, no flops.py."""
    d, grid = p.decoder, p.grid
    for merge in schedule.vision:
        grid = merge_grid(grid, merge, p.multiple)
    V = p.tiles * grid.tokens // 4
    total, keeps = 0.0, {s.layer: s.keep for s in schedule.language}
    for layer in range(d.layers):
        if layer in keeps:
            if keeps[layer]:
                options = schedule.score.options
                c = int(float(options["cutoff"]) * V / 2)
                high = options["band"] == "high"
                total += V * d.hidden * high  # the low-pass taken from the signal
                if high or c < V // 2:  # else the low-pass has every bin and is left out
                    total += 2 * V * d.hidden * 2 * (2 * (c + 1))
                total += 2 * V * d.hidden
            V = keeps[layer]
        S = V + p.text_tokens
        for rows, columns in (
            (d.heads * d.head_dim, d.hidden),
            (d.hidden, d.heads * d.head_dim),
            (2 * d.kv_heads * d.head_dim, d.hidden),
            (3 * d.intermediate, d.hidden),
        ):
            total += 2 * S * rows * columns
        pairs = S * (S + 1) / 2
        total += 2 * 2 * pairs * d.heads * d.head_dim
    return total + 2 * d.hidden * d.vocab


def fewest_flops(p: Problem, options: SolverOptions) -> float:
    """All visual tokens go at the first stage that is not before layer 0; without OIM."""
    L = p.decoder.layers
    first = next((int(L * part) for part in options.stages if int(L * part)), L - 1)
    return independent_flops(p, Schedule(language=(Prune(layer=first, keep=0),)))


@cache
def largest_ratio(name: str, tiles: int, options: SolverOptions) -> float:
    """By brute force: over every pair of merges whose factor is at most OIM's share of the ratio."""
    p, found = problem(name, tiles), []
    lengths = {merged_length(p.grid.w, group, 2) for group in range(2, p.grid.w + 2)}
    baseline = independent_flops(p, Schedule())
    for h, w in itertools.product(lengths, repeat=2):
        merged = replace(p, grid=Grid(h, w))
        ratio = baseline / fewest_flops(merged, options)
        if p.grid.tokens / merged.grid.tokens <= ratio**options.oim_share:
            found.append(ratio)
    return max(found)


def check_refusal(p: Problem, ratio: float, options: SolverOptions, message: str) -> None:
    """A refusal must be due: the ratios it names stand around the one asked for."""
    found = re.search(r"largest feasible ratio is ([\d.]+)x", message)
    assert found, message
    largest = float(found[1])
    always = independent_flops(p, Schedule()) / fewest_flops(p, options)
    assert largest > always - 0.011  # what is shown has two decimals
    if "is not feasible" in message:
        assert ratio > largest
        return
    nearest = re.search(r"nearest that exist are ([\d.]+)x(?:, ([\d.]+)x)?;", message)
    assert nearest, message
    assert float(nearest[1]) < ratio + 0.006
    assert nearest[2] is None or float(nearest[2]) > 1.02 * ratio - 0.006


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("tiles", [1, 5])
@pytest.mark.parametrize("ratio", [1, 1.3, 1.5, 2, 3, 4, 8])
@pytest.mark.parametrize("options", [DEFAULTS, PAPER], ids=["defaults", "paper"])
def test_published_shapes(name, tiles, ratio, options):
    p, largest = problem(name, tiles), math.floor(largest_ratio(name, tiles, options) * 100) / 100
    assert largest > 2, "ratios up to 2 are feasible for every published shape"
    if ratio > largest:
        with pytest.raises(LuvcError, match=f"the largest feasible ratio is {largest:g}x"):
            solve(p, ratio, options)
        ratio = largest  # what the refusal offers
    schedule = solve(p, ratio, options)
    achieved = independent_flops(p, Schedule()) / independent_flops(p, schedule)
    assert ratio * 0.999999 <= achieved <= ratio * 1.02
    assert achieved == pytest.approx(p.ratios(schedule).prefill)
    if ratio == 1:
        assert schedule.language == () and schedule.vision == ()


@settings(max_examples=60, deadline=None)
@given(
    layers=st.integers(2, 48),
    heads=st.integers(1, 32),
    head_dim=st.sampled_from([64, 128]),
    side=st.sampled_from([4, 8, 12, 16, 24, 32, 27 * 2]),
    tiles=st.integers(1, 13),
    vision_layers=st.integers(1, 32),
    text_tokens=st.integers(1, 512),
    ratio=st.floats(1, 10),
    images=st.integers(1, 3),
    scope=st.sampled_from(["prompt", "image"]),
    options=st.sampled_from([DEFAULTS, PAPER, HIGH]),
)
def test_random_shapes(
    layers, heads, head_dim, side, tiles, vision_layers, text_tokens, ratio, images, scope, options
):
    options = replace(options, scope=scope)
    hidden = heads * head_dim
    decoder = flops.DecoderShape(layers, hidden, heads, 1, head_dim, 3 * hidden, 32000)
    p = Problem(
        decoder,
        encoder(256, vision_layers, hidden),
        Grid(side, side),
        Grid(2, 2),
        tiles * images,
        images,
        text_tokens,
    )
    try:
        schedule = solve(p, ratio, options)
    except LuvcError as e:
        check_refusal(p, ratio, options, str(e))
        return
    assert ratio * 0.999999 <= p.ratios(schedule).prefill <= ratio * 1.02
    check_schedule(p, schedule)  # what the solver writes, the checker accepts
    V = p.visual_tokens(schedule.vision)
    assert all(
        a >= b
        for a, b in zip(
            (V, *schedule.visual_per_layer(layers, V)),
            schedule.visual_per_layer(layers, V),
            strict=False,
        )
    )
    if scope == "image":
        assert all(s.keep % images == 0 for s in schedule.language)


def test_refusal_names_a_feasible_ratio():
    p = problem("demo")
    with pytest.raises(LuvcError, match=r"largest feasible ratio is ([\d.]+)x") as e:
        solve(p, 8)
    largest = float(str(e.value).split("ratio is ")[1].split("x")[0])
    assert p.ratios(solve(p, largest * 0.99)).prefill >= largest * 0.99
    with pytest.raises(LuvcError):
        solve(p, largest * 1.05)


@pytest.mark.parametrize(
    ("text", "value"), [("2x", 2), ("2", 2), ("1.5x", 1.5), (" 3X ", 3), ("1", 1)]
)
def test_parse_ratio(text, value):
    assert parse_ratio(text) == value


@pytest.mark.parametrize("text", ["", "two", "x", "nan", "inf", "0.5", "-2x", "0"])
def test_parse_ratio_refuses(text):
    with pytest.raises(LuvcError, match="ratio"):
        parse_ratio(text)


@pytest.mark.parametrize(
    ("length", "group", "multiple", "left"),
    [
        (32, 2, 2, 16),
        (32, 4, 2, 24),
        (26, 2, 2, 14),
        (27, 2, 1, 14),
        (27, 2, 3, 15),
        (10, 3, 2, 8),
        (32, 3, 2, 22),
        (32, 33, 2, 32),
        (4, 2, 4, 4),
    ],
)
def test_merged_length(length, group, multiple, left):
    assert merged_length(length, group, multiple) == left


def test_smooth_counts():
    counts = smooth_counts(100)
    assert counts[:12] == (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12)
    assert 98 in counts and 99 not in counts and 100 in counts


def test_stages():
    schedule = Schedule(language=(Prune(layer=2, keep=5), Prune(layer=4, keep=0)))
    visual = schedule.visual_per_layer(6, 9)
    assert visual == (9, 9, 5, 5, 0, 0)
    assert [(s.first, s.last, s.visual) for s in stages_of(visual)] == [
        (0, 1, 9),
        (2, 3, 5),
        (4, 5, 0),
    ]


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Schedule(language=(Prune(layer=8, keep=4),)), "layer 8 does not exist"),
        (Schedule(vision=(Merge(layer=9, axis="width", group=2),)), "vision layer 9"),
        (Schedule(language=(Prune(layer=2, keep=144),)), "prunes nothing"),
        (Schedule(vision=(Merge(layer=1, axis="height", group=50),)), "changes nothing"),
    ],
)
def test_schedule_of_ones_own_is_checked(schedule, message):
    with pytest.raises(LuvcError, match=message):
        check_schedule(problem("demo"), schedule)


@pytest.mark.parametrize(
    "bad",
    [
        {"language": [{"layer": 4, "keep": 3}, {"layer": 2, "keep": 1}]},
        {"language": [{"layer": 2, "keep": 3}, {"layer": 4, "keep": 9}]},
        {"vision": [{"layer": 1, "axis": "depth", "group": 2}]},
        {"vision": [{"layer": 1, "axis": "width", "group": 1}]},
        {"cutoff": 0.5, "score": {"name": "spectrum"}},
        {"score": {"name": "../spectrum"}},
        {"score": {"name": "spectrum", "options": {"cutoff": [1]}}},
        {"unknown": 1},
    ],
)
def test_malformed_schedules(bad):
    with pytest.raises(ValueError):
        Schedule.model_validate(bad)


def test_the_solver_takes_other_stages_keeps_and_shares():
    shape = problem("InternVL2.5-8B")
    assert not solve(shape, 2.0).vision and solve(shape, 2.0, SolverOptions(oim_share=0.5)).vision
    late = solve(shape, 2.0, SolverOptions(stages=(0.25,)))
    assert [p.layer for p in late.language] == [8, 31]
    linear = solve(shape, 1.5, SolverOptions(keeps="linear", stages=(0.25, 0.5, 0.75)))
    keeps = [p.keep for p in linear.language[:3]]
    first, second = keeps[0] - keeps[1], keeps[1] - keeps[2]
    assert abs(first - second) <= 0.15 * keeps[0] and keeps[2] < keeps[1] < keeps[0]
    assert 1.5 <= shape.ratios(linear).prefill <= 1.53 and 2 <= shape.ratios(late).prefill <= 2.04
    with pytest.raises(LuvcError, match="the largest feasible ratio is 1"):
        solve(shape, 3.0, SolverOptions(keeps="linear", stages=(0.25, 0.5, 0.75)))


def test_stages_that_fall_together_are_refused():
    shape = problem("demo")
    L = shape.decoder.layers
    near = (1 / L, 1 / L + 0.1 / L, 0.5)
    with pytest.raises(LuvcError, match=rf"both fall before layer 1 of {L}: leave one"):
        solve(shape, 2.0, SolverOptions(stages=near))
    assert solve(shape, 2.0, SolverOptions(stages=near[::2]))


def test_parts_without_a_stage_are_told():
    options = SolverOptions(stages=(0.1, 0.25, 0.5, 0.9))
    assert stage_layers(options, 8) == (1, 2, 4) and without_stage(options, 8) == (0.9,)
    assert stage_layers(options, 4) == (1, 2) and without_stage(options, 4) == (0.1, 0.9)
