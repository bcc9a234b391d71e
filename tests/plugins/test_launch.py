"""Which kernel is chosen, its limits, and what is refused."""

import pytest

from luvc.errors import LuvcError
from luvc.plugins.launch import SHARED_BYTES
from luvc.plugins.scores.spectrum.launch import largest_radix, score_launch
from luvc.plugins.tokens.launch import gather_launch, select_launch, unit_bytes


def plan(tokens, cutoff, channels=3584, groups=1):
    return score_launch(tokens, groups, channels, cutoff, 0)


@pytest.mark.parametrize(
    "tokens, cutoff, source",
    [
        (1, 0, "score_basis.cu"),
        (2, 1, "score.cu"),
        (1024, 128, "score.cu"),
        (1009, 126, "score_basis.cu"),
        (5760, 720, "score.cu"),
        (5824, 700, "score_split.cu"),
        (7098, 887, "score_split.cu"),
        (8788, 1098, "score_split.cu"),
        (8192, 1024, "score_split.cu"),
        (8192, 4096, "score_basis.cu"),  # 8193 bins do not fit
        (8192, 2600, "score_split.cu"),
        (16384, 2048, "score_split.cu"),
        (65536, 8192, "score_basis.cu"),
        (65536, 1000, "score_split.cu"),
        (65537, 8192, "score_basis.cu"),
    ],
)
def test_source(tokens, cutoff, source):
    assert plan(tokens, cutoff).source == source


def test_every_length_has_a_launch_within_the_limits():
    for tokens in [*range(1, 400), *range(400, 30000, 97), 65536, 65537, 10**6 + 3]:
        for cutoff in {0, tokens // 8, tokens // 2}:
            launch = plan(tokens, cutoff)
            assert launch.shared_bytes <= SHARED_BYTES
            assert launch.threads % 32 == 0 and 32 <= launch.threads <= 512
            assert 1 <= launch.chunks <= 128


def test_every_transform_ends_in_butterflies():
    """fft.cuh divides by the radix until 1 is left; no radix would be a division by zero."""
    for tokens in (*range(2, 400), 7098, *range(5772, 12000, 52)):
        macros = dict(plan(tokens, tokens // 8).macros)
        left = macros.get("SUB", tokens) if "MAX_RADIX" in macros else 1
        while left > 1:
            radix = largest_radix(left, macros["MAX_RADIX"])
            assert radix, tokens
            left //= radix


@pytest.mark.parametrize("channels", [1, 2, 7, 896, 1152, 3584, 4096, 8192])
def test_chunks_do_not_depend_on_the_type(channels):
    chunks = {score_launch(1024, 1, channels, 128, 0, t).chunks for t in ("float16", "float32")}
    assert len(chunks) == 1


@pytest.mark.parametrize("tokens", [1, 31, 1024, 1025, 65536])
def test_select_threads(tokens):
    launch = select_launch(tokens, 1, tokens)
    assert launch.threads == min(1024, -(-tokens // 32) * 32)
    assert launch.shared_bytes <= SHARED_BYTES


def test_unit_is_the_widest_divisor_of_a_row():
    assert unit_bytes(3584, "float16") == 16
    assert unit_bytes(12, "bfloat16") == 8
    assert unit_bytes(3, "float32") == 4
    assert unit_bytes(7, "float16") == 2


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: plan(0, 0), "V = 0"),
        (lambda: plan(1024, 513), "cutoff 513 is outside 0 .. 512"),
        (lambda: plan(1024, -1), "cutoff -1"),
        (lambda: plan(1024, 8, channels=0), "D = 0"),
        (lambda: plan(1024, 8, groups=3), "groups 3 does not divide V = 1024"),
        (lambda: plan(1024, 8, groups=0), "groups 0"),
        (lambda: score_launch(1024, 1, 64, 8, 2), "band 2 is none of 0 .low. and 1 .high."),
        (lambda: score_launch(1024, 1, 64, 8, 0, "int8"), "element type int8"),
        (lambda: select_launch(1024, 1, 1025), "keep 1025 is outside 1 .. 1024"),
        (lambda: select_launch(1024, 1, 0), "keep 0 is outside"),
        (lambda: select_launch(0, 1, 1), "V = 0"),
        (lambda: select_launch(12, 3, 4), "keep 4 is no multiple of groups 3"),
        (lambda: gather_launch(0), "D = 0"),
        (lambda: gather_launch(8, "float64"), "element type float64"),
    ],
)
def test_refusals_name_value_and_limit(call, words):
    with pytest.raises(LuvcError, match=words):
        call()
