"""Linear attention (Gated DeltaNet, arXiv 2412.06464): a layer that keeps a state instead of keys and values.

Hugging Face's modules, and its steps in one form for prompts and for new tokens. Padding behind a row's
last token changes no state. Letters: B batch, T tokens, D width, H value heads, d key size, e value size.
"""

from typing import Any

import torch
import torch.nn.functional as F

from ...plugins.recurrence.reference import gated_delta
from .caches import ScatterCache


def linear_layer(layer: Any, i: int, hidden: torch.Tensor, cache: ScatterCache) -> torch.Tensor:
    """A whole decoder layer: hidden [B, T, D] -> [B, T, D]."""
    hidden = hidden + _mixed(layer.linear_attn, i, layer.input_layernorm(hidden), cache)
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def _mixed(net: Any, i: int, x: torch.Tensor, cache: ScatterCache) -> torch.Tensor:
    """What the tokens read of the state [B, T, D], behind the convolution over each and those before it."""
    full = cache.update_conv_state(net.in_proj_qkv(x).transpose(1, 2), i)
    near = F.conv1d(full, net.conv1d.weight, net.conv1d.bias, groups=full.shape[1])
    q, k, v = F.silu(near).transpose(1, 2).split([net.key_dim, net.key_dim, net.value_dim], -1)
    times = net.num_v_heads // net.num_k_heads
    query, key = (_unit(y, net.num_k_heads).repeat_interleave(times, 2) for y in (q, k))
    share = net.in_proj_b(x).sigmoid().float()
    speed = F.softplus(net.in_proj_a(x).float() + net.dt_bias.float())
    decay = -net.A_log.float().exp() * speed
    assert cache.last is not None
    real = torch.arange(x.shape[1], device=x.device)[None] <= cache.last[:, None]
    share, decay = (y * real[..., None].float() for y in (share, decay))
    read, after = gated_delta(
        (query * net.head_k_dim**-0.5).flatten(2),
        key.flatten(2),
        v.float(),
        cache.state(i),
        decay,
        share,
        net.num_v_heads,
    )
    cache.keep_state(i, after)
    gate = net.in_proj_z(x).unflatten(-1, (net.num_v_heads, -1))
    return net.out_proj(net.norm(read.unflatten(-1, gate.shape[2:]).to(x.dtype), gate).flatten(2))


def _unit(x: torch.Tensor, heads: int) -> torch.Tensor:
    """float32 [B, T, heads, d] of length 1."""
    y = x.unflatten(-1, (heads, -1)).float()
    return y * torch.rsqrt((y * y).sum(-1, keepdim=True) + 1e-6)
