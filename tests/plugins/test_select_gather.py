"""The select and gather kernels, on the host and on a GPU if there is one: exactly as numpy."""

from functools import partial

import numpy as np
import pytest

from luvc.plugins.tokens.launch import gather_launch, select_launch, unit_bytes


def visual_rows(rng, batch, sequence, tokens):
    """Ascending positions of `tokens` visual tokens per batch row, int64 [batch, tokens]."""
    rows = [np.sort(rng.permutation(sequence)[:tokens]) for _ in range(batch)]
    return np.stack(rows).astype(np.int64)


def select(machine, energies, rows, sequence, keep, groups, **options):
    batch, chunks, tokens = energies.shape
    launch = select_launch(tokens, groups, keep)
    outputs = [
        np.full((batch, size), -1, np.int64) for size in (sequence - tokens + keep, keep, keep)
    ]
    positions = np.zeros((batch, sequence, 1), np.int64)
    machine.run(
        launch,
        (groups, batch, 1),
        [energies, rows, positions],
        [sequence, chunks, keep],
        outputs,
        **options,
    )
    return outputs


def expected_selection(energies, rows, sequence, keep, groups):
    """keep_index, next_visual_index and kept by a stable sort, row by row."""
    batch, _, tokens = energies.shape
    length = tokens // groups
    result = [], [], []
    for b in range(batch):
        scores = energies[b].sum(0).reshape(groups, length)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : keep // groups]
        kept = np.sort((best + length * np.arange(groups)[:, None]).ravel())
        stays = np.ones(sequence, bool)
        stays[rows[b]] = False
        stays[rows[b][kept]] = True
        place = np.cumsum(stays) - 1
        for values, row in zip(
            result, (np.flatnonzero(stays), place[rows[b][kept]], kept), strict=True
        ):
            values.append(row)
    return [np.stack(values) for values in result]


def check_selection(machine, energies, rows, sequence, keep, groups, **options):
    got = select(machine, energies, rows, sequence, keep, groups, **options)
    for name, one, other in zip(
        ("keep_index", "next_visual_index", "kept"),
        got,
        expected_selection(energies, rows, sequence, keep, groups),
        strict=True,
    ):
        assert np.array_equal(one, other), (name, keep, groups)


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize(
    "tokens, groups", [(1, 1), (7, 1), (105, 3), (256, 1), (1009, 1), (2816, 11)]
)
def test_select_every_keep(machine, tokens, groups, ties):
    rng = np.random.default_rng(tokens)
    batch, chunks = 2, 3
    sequence = tokens + 90
    # Multiples of 1/8 sum exactly in every order, so the expected order is beyond doubt.
    values = rng.integers(0, 3 if ties else 10**6, (batch, chunks, tokens)) / 8
    energies = values.astype(np.float32)
    rows = visual_rows(rng, batch, sequence, tokens)
    length = tokens // groups
    for per_group in sorted({1, 2, length // 3 or 1, length // 2 or 1, length - 1 or 1, length}):
        if per_group <= length:
            check_selection(machine, energies, rows, sequence, per_group * groups, groups)


@pytest.mark.parametrize("tokens, keep", [(16384, 5000), (65536, 4001), (65536, 65536)])
def test_select_long(machine, tokens, keep):
    rng = np.random.default_rng(0)
    energies = (rng.integers(0, 30000, (1, 2, tokens)) / 4).astype(np.float32)
    start = 40  # one run of visual tokens between two of text, as in a prompt
    rows = np.arange(start, start + tokens, dtype=np.int64)[None]
    check_selection(machine, energies, rows, tokens + 100, keep, 1)


@pytest.mark.parametrize("kind", ["equal", "zero", "huge", "infinite", "negative"])
def test_select_odd_energies(machine, kind):
    rng = np.random.default_rng(1)
    values = {
        "equal": np.full(300, 2.5),
        "zero": np.where(rng.random(300) < 0.5, 0.0, -0.0),
        "huge": rng.random(300) * 3e38,
        "infinite": np.where(rng.random(300) < 0.1, np.inf, 1.0),
        "negative": -rng.random(300),
    }
    energies = values[kind].astype(np.float32).reshape(1, 1, 300)
    rows = visual_rows(rng, 1, 333, 300)
    for keep in (1, 77, 300):
        check_selection(machine, energies, rows, 333, keep, 1)


def test_select_counts_nan_as_highest(machine):
    energies = np.ones((1, 1, 40), np.float32)
    energies[0, 0, [3, 17]] = np.nan
    rows = np.arange(40, dtype=np.int64)[None]
    assert select(machine, energies, rows, 40, 2, 1)[2].tolist() == [[3, 17]]


def test_select_is_order_free(emulator):
    rng = np.random.default_rng(2)
    energies = rng.integers(0, 9, (2, 2, 1500)).astype(np.float32)
    rows = visual_rows(rng, 2, 1600, 1500)
    check_selection(emulator, energies, rows, 1600, 700, 1, backwards=True)


def test_removing_any_barrier_of_select_fails(emulator, tmp_path):
    rng = np.random.default_rng(3)
    tokens = 40000  # more than 32 rows of 1024 tokens: two walks
    energies = rng.integers(0, 2**20, (1, 1, tokens)).astype(np.float32)
    rows = np.arange(tokens, dtype=np.int64)[None]

    def check(backwards, kernels=None):
        options = {"kernels": kernels, "backwards": backwards}
        check_selection(emulator, energies, rows, tokens, tokens // 3, 1, **options)

    check(False)
    assert emulator.passes_both_ways(check), "a child fails also with every barrier in place"
    for line, kernels in emulator.without_each_barrier("select.cu", tmp_path):
        emulator.build(select_launch(tokens, 1, tokens // 3), kernels)
        idle = emulator.passes_both_ways(partial(check, kernels=kernels))
        assert not idle, f"the barrier of select.cu:{line} is not needed, or its lack not seen"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("channels", [1, 6, 20, 64, 896])
def test_gather(machine, channels, dtype):
    rng = np.random.default_rng(channels)
    batch, sequence = 2, 50
    surviving = 23
    components = 1 if channels % 3 else 3
    word = np.uint32 if dtype == "float32" else np.uint16
    hidden = rng.integers(0, np.iinfo(word).max, (batch, sequence, channels), word)
    positions = rng.integers(0, 2**40, (batch, sequence, components))
    keep_index = visual_rows(rng, batch, sequence, surviving)
    hidden_kept = np.zeros((batch, surviving, channels), hidden.dtype)
    positions_kept = np.zeros((batch, surviving, components), np.int64)
    units = channels * hidden.itemsize // unit_bytes(channels, dtype)
    machine.run(
        gather_launch(channels, dtype),
        (surviving, batch, 1),
        [hidden, positions, keep_index],
        [sequence, units, components],
        [hidden_kept, positions_kept],
    )
    rows = keep_index[..., None]
    assert np.array_equal(hidden_kept, np.take_along_axis(hidden, rows, 1))
    assert np.array_equal(positions_kept, np.take_along_axis(positions, rows, 1))
