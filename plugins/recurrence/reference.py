"""The gated delta rule in plain torch, in chunks: what its body is held to, and the exporter's operator.

Letters: contract.py; n tokens of a chunk.
"""

import torch

from ..contract import DOMAIN

CHUNK = 64


@torch.library.custom_op(f"{DOMAIN}::gated_delta", mutates_args=())
def gated_delta(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    state: torch.Tensor,
    decay: torch.Tensor,
    share: torch.Tensor,
    heads: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read and correct a state token by token (Gated DeltaNet, arXiv 2412.06464).

    Before each token S fades to exp(decay) S, and then what key reads of it moves to the value by a share:
    S + key (x) share (value - S^T key). The output is S^T query.

    Args:
        query: float32 [B, T, H * d], scaled.
        key: float32 [B, T, H * d], of length 1.
        value: float32 [B, T, H * e].
        state: float32 [B, H, d, e].
        decay: float32 [B, T, H], 0 or less.
        share: float32 [B, T, H], from 0 to 1.
        heads: H.

    Returns:
        float32 [B, T, H * e], and the state after the last token.
    """
    q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    decay, share = decay.transpose(1, 2), share.transpose(1, 2)[..., None]
    outputs, state = [], state.clone()
    for start in range(0, query.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        q_, k_, v_, share_ = (x[:, :, part] for x in (q, k, v, share))
        faded = decay[:, :, part].cumsum(2)
        between = (faded[..., None] - faded[:, :, None]).tril().exp().tril()  # [B, H, n, n]
        known = (share_ * k_) @ k_.mT * between
        wanted = share_ * (v_ - faded.exp()[..., None] * (k_ @ state))
        change = torch.linalg.solve_triangular(known, wanted, upper=False, unitriangular=True)
        seen = faded.exp()[..., None] * (q_ @ state)
        outputs.append(seen + (q_ @ k_.mT * between) @ change)
        left = (faded[..., -1:] - faded).exp()[..., None]
        state = faded[..., -1].exp()[..., None, None] * state + (left * k_).mT @ change
    return torch.cat(outputs, 2).transpose(1, 2).flatten(2), state


@gated_delta.register_fake
def _(query, key, value, state, decay, share, heads):
    return torch.empty_like(value), torch.empty_like(state)
