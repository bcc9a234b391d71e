"""FLOPs and bytes of a stage, from shapes alone (no torch, no weights).

A multiply-add is 2 FLOPs. Matrix products are counted; norms, activations and copies are not.
Causal attention is counted as the half it needs (a query sees the keys up to itself), which is what
fused kernels compute. Letters: D hidden size, N vision tokens, V visual tokens, L layers.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class DecoderShape:
    """A language model's widths: gated MLP, grouped-query attention."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int


@dataclass(frozen=True)
class EncoderShape:
    """A vision tower's widths: plain MLP, full attention, `prefix` tokens beside the grid (CLS)."""

    layers: int
    hidden: int
    intermediate: int
    prefix: int
    patch_values: int  # numbers in one patch, channels * patch height * patch width
    shuffle: int  # grid tokens that become one visual token
    projector: tuple[int, ...]  # widths of the projector's linear layers, input first


@dataclass(frozen=True)
class SpuCost:
    """What one SPU stage scores: `tokens` per group, bins up to `cutoff`, `groups` runs."""

    tokens: int
    cutoff: int
    groups: int = 1

    def flops(self, hidden: int) -> float:
        """The truncated-basis form: project on 2 (cutoff + 1) rows and back, square and add."""
        basis = 2 * (self.cutoff + 1)
        return self.groups * self.tokens * hidden * (4.0 * basis + 2)


def decoder_layer(shape: DecoderShape, tokens: float) -> float:
    """FLOPs of one decoder layer over `tokens` new tokens with no past."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    weights = shape.hidden * (2 * q + 2 * kv + 3 * shape.intermediate)
    return 2.0 * tokens * weights + 2.0 * tokens * (tokens + 1) * q


def prefill(
    shape: DecoderShape, visual: tuple[int, ...], text: int, pruning: tuple[SpuCost, ...] = ()
) -> float:
    """FLOPs of one prompt: V_l visual and `text` text tokens in each layer, one row of logits.

    Args:
        shape: the decoder.
        visual: V_l for every layer.
        text: text tokens.
        pruning: the scored SPU stages.
    """
    layers = sum(decoder_layer(shape, v + text) for v in visual)
    return layers + 2.0 * shape.hidden * shape.vocab + sum(p.flops(shape.hidden) for p in pruning)


def encoder_layer(shape: EncoderShape, tokens: float) -> float:
    """FLOPs of one vision layer over `tokens` grid tokens (the prefix is added here)."""
    tokens += shape.prefix
    weights = shape.hidden * (4 * shape.hidden + 2 * shape.intermediate)
    return 2.0 * tokens * weights + 4.0 * tokens * tokens * shape.hidden


def vision(shape: EncoderShape, patches: int, tokens: tuple[int, ...]) -> float:
    """FLOPs of one tile: patch embedding, layers, projector.

    Args:
        shape: the tower.
        patches: grid tokens before any merging.
        tokens: grid tokens in each layer.
    """
    embedding = 2.0 * patches * shape.patch_values * shape.hidden
    pairs = zip(shape.projector, shape.projector[1:], strict=False)
    projector = 2.0 * (tokens[-1] / shape.shuffle) * sum(a * b for a, b in pairs)
    return embedding + sum(encoder_layer(shape, n) for n in tokens) + projector
