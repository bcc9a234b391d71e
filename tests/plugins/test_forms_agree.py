"""The kernels, on the host and on a GPU if there is one, against the torch reference: one stage."""

import numpy as np
import pytest
import torch

from luvc.plugins.scores.spectrum.launch import score_launch
from luvc.plugins.scores.spectrum.reference import spectrum_score, twiddle
from luvc.plugins.tokens.launch import gather_launch, select_launch, unit_bytes
from luvc.plugins.tokens.reference import gather_tokens, spectrum_select

TIE_MARGIN = 1e-5  # energies closer than this, relative to the highest, may change places


def kernel_stage(machine, hidden, rows, positions, keep, score):
    """Energies [B, V] and the five other outputs of the three kernels; score is its attributes."""
    cutoff, groups, band = score
    batch, sequence, channels = hidden.shape
    tokens, components = rows.shape[1], positions.shape[2]
    surviving = sequence - tokens + keep
    table = twiddle(tokens // groups).numpy()
    launch = score_launch(tokens, groups, channels, cutoff, band, "float32")
    energies = np.full((batch, launch.chunks, tokens), np.nan, np.float32)
    grid = (launch.chunks, batch, launch.blocks)
    scalars = [sequence, channels, cutoff]
    machine.run(launch, grid, [hidden, rows, table], scalars, [energies])
    selected = [np.zeros((batch, n), np.int64) for n in (surviving, keep, keep)]
    launch = select_launch(tokens, groups, keep)
    scalars = [sequence, energies.shape[1], keep]
    machine.run(launch, (groups, batch, 1), [energies, rows, positions], scalars, selected)
    gathered = [
        np.zeros((batch, surviving, channels), np.float32),
        np.zeros((batch, surviving, components), np.int64),
    ]
    units = channels * 4 // unit_bytes(channels, "float32")
    inputs, scalars = [hidden, positions, selected[0]], [sequence, units, components]
    machine.run(
        gather_launch(channels, "float32"), (surviving, batch, 1), inputs, scalars, gathered
    )
    return energies.sum(1), *selected, *gathered


@pytest.mark.parametrize(
    "tokens, groups, keep", [(16, 1, 5), (105, 3, 60), (196, 1, 98), (1009, 1, 300)]
)
@pytest.mark.parametrize("band", [0, 1])
def test_kernels_match_the_reference(machine, tokens, groups, keep, band):
    rng = np.random.default_rng(tokens)
    batch, sequence = 2, tokens + 21
    channels = 10
    hidden = rng.standard_normal((batch, sequence, channels)).astype(np.float32)
    rows = np.stack([np.sort(rng.permutation(sequence)[:tokens]) for _ in range(batch)])
    positions = rng.integers(0, 4096, (batch, sequence, 3))
    score = tokens // groups // 8, groups, band
    energies, *rest = kernel_stage(machine, hidden, rows, positions, keep, score)

    signal, index, places = map(torch.from_numpy, (hidden, rows, positions))
    table = twiddle(tokens // groups)
    wanted = spectrum_score(signal, index, table, *score)
    assert np.abs(energies - wanted[:, 0].numpy()).max() < TIE_MARGIN * wanted.max()

    # Random energies leave more than the margin around the last token kept, so all else is exact.
    ranked = wanted.reshape(batch * groups, -1).sort(1, descending=True).values
    kept = keep // groups
    assert (ranked[:, kept - 1] - ranked[:, kept]).min() > TIE_MARGIN * wanted.max()
    selected = spectrum_select(wanted, index, places, keep, groups)
    gathered = gather_tokens(signal, places, selected[0])
    for got, want in zip(rest, (*selected, *gathered), strict=True):
        assert np.array_equal(got, want.numpy())
