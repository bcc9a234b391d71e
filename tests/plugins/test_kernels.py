"""The score kernels, built for the host and run on a GPU if there is one, against numpy in float64.

The sources are those that NVRTC compiles for the GPU; only the launch is emulated (emu.h).
"""

from collections import namedtuple
from functools import partial

import numpy as np
import pytest

from luvc.plugins.scores.spectrum.launch import score_launch

Case = namedtuple("Case", "tokens groups channels dtype cutoff batch band", defaults=[None, 1, 0])

# Every length in one element type, with odd, even and tiny channel counts.
CASES = [
    Case(1, 1, 5, "float32", 0),
    Case(2, 1, 6, "float16"),
    Case(16, 1, 24, "float16", 2, 3),
    Case(49, 1, 21, "bfloat16", 6, 2),
    Case(105, 3, 9, "float32", 4, 2),
    Case(105, 1, 40, "float16", 13, 2),
    Case(144, 1, 8, "bfloat16", 72),
    Case(196, 1, 1, "float32"),
    Case(256, 1, 19, "bfloat16", 32, 2),
    Case(256 * 11, 1, 6, "float16"),
    Case(256 * 11, 11, 4, "float16"),
    Case(256 * 13, 1, 5, "float32"),
    Case(256 * 13, 13, 3, "bfloat16"),
    Case(576, 1, 12, "float16", 72, 2),
    Case(576, 1, 12, "bfloat16", 72, 2),
    Case(576, 1, 12, "float32", 72, 2),
    Case(576, 3, 7, "float16", 24, 2),
    Case(729, 1, 10, "float32"),
    Case(1000, 1, 7, "bfloat16"),
    Case(1001, 1, 9, "float16"),
    Case(1009, 1, 9, "float16", 126, 2),
    Case(1009, 1, 5, "float32", 504),
    Case(1024, 1, 10, "float32", 128, 2),
    Case(1024, 1, 10, "float16", 0),
    Case(1440, 1, 6, "bfloat16"),
    Case(3 * 1009, 3, 2, "bfloat16", 60, 2),
    Case(2048, 1, 5, "float16"),
    Case(4096, 1, 3, "bfloat16"),
    Case(4590, 1, 3, "float16"),  # 17 * 270: the basis, with an even length
    Case(5760, 1, 2, "float32"),
    Case(5824, 1, 3, "bfloat16"),  # split into 2912 = 13 * 8 * 7 * 4
    Case(8788, 1, 2, "float16"),  # split into 2197 = 13^3
    Case(8192, 1, 3, "float16", 1024, 2),
    Case(6144, 1, 2, "float32"),
    Case(16384, 1, 2, "bfloat16", 2048),
    Case(17 * 1024, 1, 2, "float32", 300),  # split with a prime number of runs
    Case(20011, 1, 1, "float32", 40),  # several ranges of the basis
    # the fewest channels with which blocks of each kernel make several passes
    Case(144, 1, 2050, "bfloat16", 18),
    Case(1024, 1, 1026, "float16", 128),
    Case(1009, 1, 513, "float16", 126),
    Case(8192, 1, 257, "float16", 1024),
    # band high: every kernel, single butterflies, the mean alone, even and odd, several passes
    Case(2, 1, 6, "float16", 0, 1, 1),
    Case(16, 1, 24, "float16", 2, 3, 1),
    Case(105, 3, 9, "float32", 4, 2, 1),
    Case(196, 1, 1, "float32", 0, 1, 1),
    Case(1024, 1, 10, "float16", 0, 1, 1),
    Case(1024, 1, 1026, "float16", 128, 1, 1),
    Case(1009, 1, 9, "float16", 0, 2, 1),
    Case(1009, 1, 513, "float16", 126, 1, 1),
    Case(2018, 1, 3, "float16", None, 1, 1),  # the basis, with an even length
    Case(5824, 1, 3, "bfloat16", 0, 1, 1),
    Case(8192, 1, 257, "float16", 200, 1, 1),
    Case(17 * 1024, 1, 2, "float32", 300, 1, 1),
    Case(20011, 1, 1, "float32", 40, 1, 1),
]

# Kernels, and pairs of channels at once, whose blocks are to be seen making several passes.
SEVERAL = {("score.cu", 8), ("score.cu", 4), ("score_split.cu", None), ("score_basis.cu", None)}


def encode(x: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """x rounded to dtype: the bytes a kernel reads, and their exact values in float64."""
    if dtype == "float16":
        raw = x.astype(np.float16)
        return raw, raw.astype(np.float64)
    raw = x.astype(np.float32)
    if dtype == "float32":
        return raw, raw.astype(np.float64)
    bits = raw.view(np.uint32)
    raw = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return raw, (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def launch_of(case: Case):
    cutoff = case.tokens // case.groups // 8 if case.cutoff is None else case.cutoff
    sizes = case.tokens, case.groups, case.channels
    return score_launch(*sizes, cutoff, case.band, case.dtype), cutoff


def several_passes(launch, channels):
    """Whether blocks of a score kernel make more than one pass over channels."""
    macros = dict(launch.macros)
    at_once = macros.get("CHANNELS") or 2 * macros.get("PAIRS", 1)
    return launch.chunks * at_once < channels


on_kernels = pytest.mark.xdist_group("kernels")  # one process builds them


@pytest.fixture(scope="module")
def prepared(machine):
    launches = {launch_of(case)[0] for case in CASES}
    machine.build_all(sorted(launches, key=str))
    return machine


def visual_rows(rng, batch, sequence, tokens):
    """Ascending positions of `tokens` visual tokens per batch row, int64 [batch, tokens]."""
    rows = [np.sort(rng.permutation(sequence)[:tokens]) for _ in range(batch)]
    return np.stack(rows).astype(np.int64)


def twiddles(length):
    angle = 2 * np.pi / length * np.arange(length)
    return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)


def filtered_energies(x, groups, cutoff, band=0):
    """The definition in float64: x [B, V, D] -> [B, V]."""
    batch, tokens, channels = x.shape
    spectrum = np.fft.rfft(x.reshape(batch, groups, -1, channels), axis=2)
    spectrum[:, :, cutoff + 1 :] = 0
    low = np.fft.irfft(spectrum, tokens // groups, axis=2)
    found = x - low.reshape(x.shape) if band else low
    return (found**2).sum(-1).reshape(batch, tokens)


def score(machine, case, seed=0, **options):
    """Energies of the kernel, summed over the chunks, and of numpy; both [B, V]."""
    rng = np.random.default_rng(seed)
    launch, cutoff = launch_of(case)
    sequence = case.tokens + 7
    shape = (case.batch, sequence, case.channels)
    raw, exact = encode(rng.standard_normal(shape) + 0.5, case.dtype)
    rows = visual_rows(rng, case.batch, sequence, case.tokens)
    energies = np.full((case.batch, launch.chunks, case.tokens), np.nan, np.float32)
    machine.run(
        launch,
        (launch.chunks, case.batch, launch.blocks),
        [raw, rows, twiddles(case.tokens // case.groups)],
        [sequence, case.channels, cutoff],
        [energies],
        **options,
    )
    visual = np.take_along_axis(exact, rows[..., None], 1)
    wanted = filtered_energies(visual, case.groups, cutoff, case.band)
    return energies.astype(np.float64).sum(1), wanted


@on_kernels
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.tokens}/{c.groups}-{c.dtype}-{c.band}")
def test_score(prepared, case):
    got, want = score(prepared, case)
    assert np.abs(got - want).max() / want.max() < 1e-5


@on_kernels
def test_score_is_deterministic(prepared):
    case = Case(576, 1, 12, "float16", 72, 2)
    assert np.array_equal(score(prepared, case)[0], score(prepared, case)[0])


@on_kernels
def test_score_is_order_free(emulator):
    case = Case(576, 1, 12, "float16", 72, 2)
    backwards = score(emulator, case, backwards=True)[0]
    assert np.array_equal(score(emulator, case)[0], backwards)


def test_every_score_kernel_and_butterfly_is_covered():
    launches = [launch_of(case)[0] for case in CASES]
    assert {launch.source for launch in launches} == {
        "score.cu",
        "score_split.cu",
        "score_basis.cu",
    }
    bands = {(launch.source, dict(launch.macros)["BAND"]) for launch in launches}
    assert bands == {(launch.source, band) for launch in launches for band in (0, 1)}
    assert any(dict(launch.macros).get("RANGES", 1) > 1 for launch in launches)
    assert {case.dtype for case in CASES} == {"float16", "bfloat16", "float32"}
    assert len({case.tokens for case in CASES}) >= 20
    several = {
        (launch.source, dict(launch.macros).get("PAIRS"))
        for launch, case in zip(launches, CASES, strict=True)
        if several_passes(launch, case.channels)
    }
    assert several >= SEVERAL


# Kernels whose every barrier has work on both sides; it is taken out of `source`.
RACES = [
    ("score.cu", Case(576, 1, 8, "float32", 40)),
    ("fft.cuh", Case(576, 1, 8, "float32", 40)),
    ("score_split.cu", Case(8100, 1, 3, "float32", 1000)),
    ("score_basis.cu", Case(1009, 1, 9, "float32", 200)),
]


@pytest.mark.parametrize("source, case", RACES, ids=lambda value: str(value)[:14])
def test_removing_any_barrier_fails(emulator, tmp_path, source, case):
    """Shows that the emulation sees missing barriers, and that none of ours is idle."""

    def check(backwards, kernels=None):
        got, want = score(emulator, case, kernels=kernels, backwards=backwards)
        assert np.abs(got - want).max() / want.max() < 1e-5

    check(False)
    assert emulator.passes_both_ways(check), "a child fails also with every barrier in place"
    for line, kernels in emulator.without_each_barrier(source, tmp_path):
        emulator.build(launch_of(case)[0], kernels)
        idle = emulator.passes_both_ways(partial(check, kernels=kernels))
        assert not idle, f"the barrier of {source}:{line} is not needed, or its lack not seen"
