"""The spectrum score on PyTorch's CUDA tensors. Letters: ../../contract.py."""

import torch

from ...cuda_kernel import element, run
from . import launch


def spectrum_score(
    signal, visual_index, twiddle, cutoff: int, groups: int, band: int
) -> torch.Tensor:
    """`reference.spectrum_score`, in C partial sums."""
    (B, S, D), V = signal.shape, visual_index.shape[1]
    plan = launch.score_launch(V, groups, D, cutoff, band, element(signal))
    energies = signal.new_empty((B, plan.chunks, V), dtype=torch.float32)
    call = launch.score_call(plan, B, S, D, cutoff)
    run(plan, call, (signal, visual_index, twiddle), (energies,))
    return energies
