"""OIM, the Orthogonal Iterative Merger: neighbouring tokens of the vision grid are averaged.

One step shortens one axis and keeps the grid rectangular, so position tables, windows and projectors
that need a rectangle still work. Lowered to reshape, slice, mean and concat. Source: LUVC,
arXiv 2512.09010, as read in the design. Letters: N tiles, h rows, w columns, D width.
"""

import torch

from ...engines.bundle.schedule import Merge
from ..planning.grid import Grid


def merge_axis(x: torch.Tensor, dim: int, group: int, length: int) -> torch.Tensor:
    """Shorten `dim` to `length`: in the first groups the last two of `group` tokens are averaged.

    Args:
        x: [..., n, ...].
        dim: the axis, counted from the front.
        group: g >= 2; g tokens become g - 1.
        length: tokens to leave, at least n - n // g; surplus tokens at the end stay unmerged.

    Returns:
        [..., length, ...].
    """
    n = x.shape[dim]
    groups = n - length
    if groups == 0:
        return x
    head = x.narrow(dim, 0, groups * group).unflatten(dim, (groups, group))
    mean = head.narrow(dim + 1, group - 2, 2).mean(dim + 1, keepdim=True)
    if group > 2:
        mean = torch.cat([head.narrow(dim + 1, 0, group - 2), mean], dim + 1)
    merged = mean.flatten(dim, dim + 1)
    rest = n - groups * group
    return torch.cat([merged, x.narrow(dim, groups * group, rest)], dim) if rest else merged


def merge_similar(x: torch.Tensor, length: int) -> torch.Tensor:
    """Shorten axis 1 to `length`: in every row the most similar neighbours are merged.

    Odd tokens may join the even neighbour on either side (cosine similarity); the n - length most
    similar ones do, and each even token becomes the mean of itself and those that joined it. Every
    row loses the same number, so rows stay equally long. Order is kept.

    Args:
        x: [R, n, D] rows.
        length: tokens to leave, at least n - n // 2.

    Returns:
        [R, length, D].
    """
    R, n, D = x.shape
    odds, evens = n // 2, n - n // 2
    gone = n - length
    if gone == 0:
        return x
    unit = torch.nn.functional.normalize(x.float(), dim=-1)
    even, odd = unit[:, 0::2], unit[:, 1::2]
    left = (even[:, :odds] * odd).sum(-1)
    right = (even[:, 1:] * odd[:, : evens - 1]).sum(-1)
    if evens == odds:  # the last odd token has no even neighbour on its right
        right = torch.cat([right, torch.full_like(left[:, :1], -2.0)], 1)
    leaves = torch.topk(torch.maximum(left, right), gone, dim=1).indices
    stays = torch.ones_like(left).scatter(1, leaves, 0.0)
    target = torch.arange(odds, device=x.device)[None] + (right > left).long()
    joins = (target[:, None] == torch.arange(evens, device=x.device)[None, :, None]).float()
    joins = joins * (1 - stays)[:, None]
    total = x[:, 0::2].float() + joins @ x[:, 1::2].float()
    even_mean = (total / (1 + joins.sum(-1, keepdim=True))).to(x.dtype)
    # sort key: tokens that stay come first, in their order
    position = torch.arange(n, device=x.device)
    even_key = position[0::2].expand(R, -1)
    odd_key = position[1::2] + n * (1 - stays).long()
    order = torch.topk(
        torch.cat([even_key, odd_key], 1), length, dim=1, largest=False, sorted=True
    ).indices
    tokens = torch.cat([even_mean, x[:, 1::2]], 1)
    return torch.gather(tokens, 1, order[..., None].expand(-1, -1, D))


def merge_tokens(
    x: torch.Tensor, before: Grid, after: Grid, merge: Merge, prefix: int, match: bool = False
) -> torch.Tensor:
    """One OIM step on a tower's hidden states; the prefix (CLS, registers) stays as it is.

    Args:
        x: [N, prefix + h * w, D], raster order.
        before: grid of x.
        after: grid to reach; differs from `before` along `merge.axis` only.
        merge: axis and group.
        prefix: tokens in front of the grid.
        match: merge the most similar neighbours instead of fixed groups.

    Returns:
        [N, prefix + h' * w', D].
    """
    grid = x[:, prefix:].unflatten(1, (before.h, before.w))
    wide = merge.axis == "width"
    length = after.length(merge.axis)
    if match:
        rows = grid if wide else grid.transpose(1, 2)
        merged = merge_similar(rows.flatten(0, 1), length).unflatten(0, (-1, rows.shape[1]))
        grid = merged if wide else merged.transpose(1, 2)
    else:
        grid = merge_axis(grid, 2 if wide else 1, merge.group, length)
    tokens = grid.flatten(1, 2)
    return torch.cat([x[:, :prefix], tokens], 1) if prefix else tokens
