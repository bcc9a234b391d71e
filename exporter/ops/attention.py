"""The attention function registered with transformers as "luvc".

Every attention layer of the traced model becomes one ONNX `Attention` node (opset 23 and later),
which ONNX Runtime and TensorRT map to fused kernels. Masking has one style: causal without a mask
when every query sees itself and what came before (prefill), a boolean mask otherwise (step), nothing
at all in vision towers. Scores with a soft cap (Gemma 2) are spelled out: TensorRT-RTX refuses the node's
attribute, and runs the spelled-out form without fusing it.
"""

import contextlib
from collections.abc import Callable
from contextvars import ContextVar

import torch
from torch import nn
from transformers import AttentionInterface

from ...plugins.scores.base import Heads

NAME = "luvc"
_ASKED: ContextVar[list[Heads] | None] = ContextVar("asked", default=None)


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # by this name: some towers pass it by keyword
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention in the form transformers expects.

    Args:
        module: the attention layer; its `is_causal` counts when the argument is None.
        query: [B, H_q, S, d].
        key: [B, H_kv, C, d].
        value: [B, H_kv, C, d].
        attention_mask: bool [B or 1, 1, S, C], True where a query may look, or None.
        scaling: factor on the scores.
        is_causal: upper-left causal; used only without a mask and with S == C.
        softcap: the scores become c * tanh(scores / c).

    Returns:
        [B, S, H_q, d] and None (no attention weights: scores are never needed).
    """
    if (asked := _ASKED.get()) is not None:
        asked.append(_heads(query, key, scaling))
        if not torch.compiler.is_exporting():
            raise _Reached
        return query.transpose(1, 2), None
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = bool(causal) and attention_mask is None
    if softcap is not None:
        out = _capped(query, key, value, attention_mask, causal, scaling, softcap)
    elif torch.compiler.is_exporting():
        out = torch.onnx.ops.attention(
            query, key, value, attention_mask, is_causal=causal, scale=scaling
        )[0]
    elif attention_mask is not None and query.shape[1] != key.shape[1]:
        out = _grouped(query, key, value, attention_mask, scaling)
    else:
        out = nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attention_mask,
            is_causal=causal,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
    return out.transpose(1, 2), None


class _Reached(Exception):
    """The way out of a layer that has shown its queries and keys."""


def heads_of(layer: Callable[[], object]) -> Heads:
    """The queries and keys that a layer first takes to attention.

    By the registered function they are right in every family: behind norms, fused projections and the
    rotary embedding. What the layer makes of them is nobody's: a traced one goes on to its end, since the
    tracer counts who was called and who came back, and leaves no node.
    """
    asked = _ASKED.set(found := [])
    try:
        with contextlib.suppress(_Reached):
            layer()
    finally:
        _ASKED.reset(asked)
    return found[0]


def _heads(query: torch.Tensor, key: torch.Tensor, scaling: float | None) -> Heads:
    repeated = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    return Heads(query, repeated, query.shape[-1] ** -0.5 if scaling is None else scaling)


def _grouped(query, key, value, mask, scaling: float | None):
    """Masked attention of grouped heads -> [B, H_q, S, d].

    The heads of a group become queries of one head: PyTorch's fused kernels take a mask or groups.
    """
    groups = query.shape[1] // key.shape[1]
    folded = query.unflatten(1, (-1, groups)).flatten(2, 3)  # [B, H_kv, G * S, d]
    out = nn.functional.scaled_dot_product_attention(
        folded, key, value, attn_mask=mask.repeat(1, 1, groups, 1), scale=scaling
    )
    return out.unflatten(2, (groups, -1)).flatten(1, 2)


def _capped(query, key, value, mask, causal: bool, scaling: float | None, cap: float):
    """Attention with a soft cap on the scores, softmax in float32 -> [B, H_q, S, d]."""
    heads, S = key.shape[1], query.shape[2]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    grouped = query.unflatten(1, (heads, -1))  # [B, H_kv, G, S, d]
    scores = (grouped @ key[:, :, None].transpose(-1, -2)).float() * scale
    scores = cap * torch.tanh(scores / cap)
    if causal:
        place = torch.arange(S, device=query.device)
        mask = (place[None] <= place[:, None])[None, None]
    if mask is not None:
        scores = scores.masked_fill(~mask[:, :, None], float("-inf"))
    weights = scores.softmax(-1).to(value.dtype)
    return (weights @ value[:, :, None]).flatten(1, 2)


AttentionInterface.register(NAME, attention)
