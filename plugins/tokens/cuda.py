"""Select and gather on PyTorch's CUDA tensors. Letters: ../contract.py."""

import torch

from ..cuda_kernel import element, run
from . import launch


def spectrum_select(energies, visual_index, positions, keep: int, groups: int):
    """`reference.spectrum_select`."""
    (B, V), S = visual_index.shape, positions.shape[1]
    plan = launch.select_launch(V, groups, keep)
    shapes = (B, S - V + keep), (B, keep), (B, keep)
    found = tuple(visual_index.new_empty(shape) for shape in shapes)
    call = launch.select_call(plan, B, S, energies.shape[1], keep)
    run(plan, call, (energies, visual_index, positions), found)
    return found


def gather_tokens(hidden, positions, keep_index) -> tuple[torch.Tensor, torch.Tensor]:
    """`reference.gather_tokens`."""
    (B, S, D), (P, rows) = hidden.shape, (positions.shape[2], keep_index.shape[1])
    found = hidden.new_empty((B, rows, D)), positions.new_empty((B, rows, P))
    plan = launch.gather_launch(D, element(hidden))
    call = launch.gather_call(D, element(hidden), B, S, rows, P)
    run(plan, call, (hidden, positions, keep_index), found)
    return found
