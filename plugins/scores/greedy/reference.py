"""The greedy orders in plain torch: what their ONNX bodies are held to, and the exporter's operators."""

import torch

from ...contract import DOMAIN


@torch.library.custom_op(f"{DOMAIN}::greedy_order", mutates_args=())
def greedy_order(
    distance: torch.Tensor, first: torch.Tensor, weight: torch.Tensor, keep: int
) -> torch.Tensor:
    """Pick tokens one after the other, each as far from those picked as can be.

    Args:
        distance: float32 [G, n, n].
        first: float32 [G, n]; the highest is picked first, ties go to the lower position.
        weight: float32 [G, n]; then the highest weight times the distance from the nearest one picked.
        keep: tokens to pick.

    Returns:
        float32 [G, n]: keep, keep - 1, ... 1 in the order of picking, 0 for the rest.
    """
    rows = torch.arange(first.shape[0], device=first.device)
    order = torch.zeros_like(first)
    nearest = torch.full_like(first, torch.inf)
    value = first
    for step in range(keep):
        pick = value.argmax(1)
        order[rows, pick] = keep - step
        nearest = torch.minimum(nearest, distance[rows, pick])
        value = torch.where(order > 0, -torch.inf, weight * nearest)
    return order


@greedy_order.register_fake
def _(distance, first, weight, keep):
    return torch.empty_like(first)


@torch.library.custom_op(f"{DOMAIN}::cover_order", mutates_args=())
def cover_order(cover: torch.Tensor, keep: int) -> torch.Tensor:
    """Pick tokens one after the other, each adding as much as can be to what is covered.

    Args:
        cover: float32 [G, n, n], 0 or more: how well a token (third axis) covers another (second axis).
        keep: tokens to pick.

    Returns:
        float32 [G, n]: keep, keep - 1, ... 1 in the order of picking, 0 for the rest; ties go to the lower
        position.
    """
    rows = torch.arange(cover.shape[0], device=cover.device)
    order = torch.zeros_like(cover[:, 0])
    covered = torch.zeros_like(order)
    for step in range(keep):
        gain = (cover - covered[:, :, None]).clamp(min=0).sum(1)
        pick = torch.where(order > 0, -1.0, gain).argmax(1)
        order[rows, pick] = keep - step
        covered = torch.maximum(covered, cover[rows, :, pick])
    return order


@cover_order.register_fake
def _(cover, keep):
    return torch.empty_like(cover[:, 0])
