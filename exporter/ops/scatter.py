"""Writing new keys and values into a cache, one ONNX TensorScatter node when traced.

Letters: B batch rows, H key/value heads, C cache slots, T new tokens, d head size.
"""

import torch

from ...plugins.contract import DOMAIN


@torch.library.custom_op(f"{DOMAIN}::tensor_scatter", mutates_args=())
def tensor_scatter(cache: torch.Tensor, update: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`scattered`, as an operator of its own that export turns into TensorScatter."""
    return scattered(cache, update, index)


@tensor_scatter.register_fake
def _(cache, update, index):
    return torch.empty_like(cache)


def write(
    cache: torch.Tensor, update: torch.Tensor, index: torch.Tensor, fresh: bool = False
) -> torch.Tensor:
    """`tensor_scatter`: one ONNX TensorScatter node when traced, in place otherwise.

    Args:
        cache: [B, H, C, d].
        update: [B, H, T, d].
        index: [B].
        fresh: every index is 0.
    """
    if torch.compiler.is_exporting():
        return torch.ops.luvc.tensor_scatter(cache, update, index)
    if fresh:  # a plain copy
        cache[:, :, : update.shape[2]] = update
        return cache
    return cache.scatter_(2, _slots(update, index), update)


def scattered(cache: torch.Tensor, update: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """cache [B, H, C, d] with rows index[b] .. index[b] + T - 1 replaced by update [B, H, T, d]."""
    return cache.scatter(2, _slots(update, index), update)


def _slots(update: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Slots that update [B, H, T, d] goes to, of its shape."""
    new = torch.arange(update.shape[2], device=index.device)
    return (index[:, None, None, None] + new[None, None, :, None]).expand_as(update)
