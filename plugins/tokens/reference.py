"""Select and gather in plain torch: the definition every other form is held to, and the exporter's operators.

The functions with an operator's name are registered with `torch.library`, so `torch.onnx.export` keeps
each call as one node instead of tracing its inside. Letters: ../contract.py. Source: LUVC, arXiv
2512.09010, as read in the design (ties go to the lower position).
"""

import torch

from ..contract import DOMAIN


def take_rows(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows of x [B, S, D] at index [B, n] -> [B, n, D]."""
    return torch.gather(x, 1, index[..., None].expand(-1, -1, x.shape[2]))


def true_positions(mask: torch.Tensor, count: int) -> torch.Tensor:
    """Positions of the `count` True entries in each row of mask [B, S] -> [B, count], ascending."""
    return torch.argsort(~mask, dim=1, stable=True)[:, :count]


def indices_of(
    kept: torch.Tensor, visual_index: torch.Tensor, length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where everything stands once the visual tokens `kept` remain.

    Args:
        kept: ordinals [B, k], ascending.
        visual_index: [B, V].
        length: S.

    Returns:
        keep_index [B, S-V+k] and next_visual_index [B, k] (../contract.py).
    """
    B, V = visual_index.shape
    stays = kept.new_zeros((B, V), dtype=torch.bool).scatter(1, kept, True)
    survives = kept.new_ones((B, length), dtype=torch.bool).scatter(1, visual_index, stays)
    new_position = torch.cumsum(survives, 1) - 1
    next_visual_index = torch.gather(new_position, 1, torch.gather(visual_index, 1, kept))
    return true_positions(survives, length - V + kept.shape[1]), next_visual_index


@torch.library.custom_op(f"{DOMAIN}::spectrum_select", mutates_args=())
def spectrum_select(
    energies: torch.Tensor,
    visual_index: torch.Tensor,
    positions: torch.Tensor,
    keep: int,
    groups: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The `keep` visual tokens of highest energy; ties go to the lower position.

    Args:
        energies: float32 [B, C, V], summed over C.
        visual_index: [B, V] int64, ascending.
        positions: [B, S, P]; only S is read.
        keep: visual tokens kept of all V; each of `groups` keeps keep / groups.
        groups: equal runs of V.

    Returns:
        keep_index [B, S-V+keep], next_visual_index [B, keep], kept [B, keep] (../contract.py).
    """
    B, V = visual_index.shape
    scores = energies.sum(1).reshape(B * groups, V // groups)
    best = torch.argsort(scores, dim=1, descending=True, stable=True)[:, : keep // groups]
    stays = torch.zeros_like(scores, dtype=torch.bool).scatter(1, best, True).reshape(B, V)
    kept = true_positions(stays, keep)
    return *indices_of(kept, visual_index, positions.shape[1]), kept


@spectrum_select.register_fake
def _(energies, visual_index, positions, keep, groups):
    B, V = visual_index.shape
    rows = visual_index.new_empty((B, positions.shape[1] - V + keep))
    return rows, visual_index.new_empty((B, keep)), visual_index.new_empty((B, keep))


@torch.library.custom_op(f"{DOMAIN}::gather_tokens", mutates_args=())
def gather_tokens(
    hidden: torch.Tensor, positions: torch.Tensor, keep_index: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The surviving rows of the hidden states and of their position ids.

    Args:
        hidden: [B, S, D] float.
        positions: [B, S, P] int64.
        keep_index: [B, S'] int64, ascending.

    Returns:
        hidden [B, S', D] and positions [B, S', P].
    """
    return take_rows(hidden, keep_index), take_rows(positions, keep_index)


@gather_tokens.register_fake
def _(hidden, positions, keep_index):
    B, kept = keep_index.shape
    return hidden.new_empty((B, kept, hidden.shape[2])), positions.new_empty(
        (B, kept, positions.shape[2])
    )
