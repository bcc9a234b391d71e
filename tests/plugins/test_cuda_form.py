"""The operators on PyTorch's CUDA tensors: on a GPU if there is one, else with the host's kernels."""

import pytest
import torch

from luvc.errors import LuvcError
from luvc.plugins import cuda, cuda_kernel, nvrtc
from luvc.plugins.scores.spectrum import cuda as score_cuda
from luvc.plugins.scores.spectrum.reference import spectrum_score, twiddle
from luvc.plugins.tokens import cuda as tokens_cuda
from luvc.plugins.tokens.reference import gather_tokens, spectrum_select


@pytest.fixture(params=["host", "gpu"] if torch.cuda.is_available() else ["host"])
def place(request, monkeypatch):
    """The device of the tensors; on the host, kernels are launched by the emulator."""
    if request.param == "gpu":
        return "cuda"
    emulator = request.getfixturevalue("emulator")

    def kernel(plan):
        def run(call, inputs, outputs):
            grid, scalars = call
            assert all(t.is_contiguous() for t in (*inputs, *outputs))
            arrays = ([t.numpy() for t in tensors] for tensors in (inputs, outputs))
            ins, outs = arrays
            emulator.run(plan, grid, ins, scalars, outs)

        return run

    monkeypatch.setattr(cuda_kernel, "kernel", kernel)
    return "cpu"


@pytest.mark.parametrize(
    "tokens, groups, keep, band", [(48, 1, 20, 0), (105, 3, 60, 1), (257, 1, 257, 1)]
)
def test_a_stage_equals_the_reference(place, tokens, groups, keep, band):
    generator = torch.Generator().manual_seed(tokens)
    B, S = 2, tokens + 9
    D, P = 12, 3
    # neither hidden states nor index are contiguous
    hidden = torch.randn(B, D, S, generator=generator).transpose(1, 2).to(place)
    rows = [torch.randperm(S, generator=generator)[:tokens].sort().values for _ in range(B)]
    index = torch.stack(rows, 1).T.to(place)
    positions = torch.randint(0, 999, (B, S, P), generator=generator).to(place)
    table = twiddle(tokens // groups).to(place)
    cutoff = tokens // groups // 8
    energies = score_cuda.spectrum_score(hidden, index, table, cutoff, groups, band)
    wanted = spectrum_score(hidden.cpu(), index.cpu(), table.cpu(), cutoff, groups, band)
    torch.testing.assert_close(energies.sum(1).cpu(), wanted.sum(1), rtol=1e-5, atol=1e-4)
    selected = tokens_cuda.spectrum_select(energies, index, positions, keep, groups)
    expected = spectrum_select(energies.cpu(), index.cpu(), positions.cpu(), keep, groups)
    for ours, theirs in zip(selected, expected, strict=True):
        assert torch.equal(ours.cpu(), theirs)
    gathered = tokens_cuda.gather_tokens(hidden, positions, selected[0])
    expected = gather_tokens(hidden.cpu(), positions.cpu(), selected[0].cpu())
    for ours, theirs in zip(gathered, expected, strict=True):
        assert torch.equal(ours.cpu(), theirs)


def test_without_nvrtc_the_operators_stay_pytorchs(monkeypatch):
    def missing():
        raise LuvcError("no NVRTC here")

    monkeypatch.setattr(nvrtc, "load", missing)
    monkeypatch.setattr(cuda, "_register", lambda: pytest.fail("registered"))
    assert cuda.register() == "SPU in PyTorch (no NVRTC here)"


def test_registering_leaves_the_operators_on_the_cpu_as_they_are():
    if cuda.register() != cuda.KERNELS:
        pytest.skip(cuda.register())
    assert cuda.register() == cuda.KERNELS  # a second time
    x, index = torch.randn(1, 20, 4), torch.arange(3, 19)[None]
    energies = torch.ops.luvc.spectrum_score(x, index, twiddle(16), 4, 1, 0)
    assert energies.shape == (1, 1, 16)  # one partial sum, not the kernel's chunks
