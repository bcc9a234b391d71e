"""FLOPs and bytes of a stage, from shapes alone (no torch, no weights).

A multiply-add is 2 FLOPs. Matrix products are counted; norms, activations and copies are not.
Causal attention is counted as the half it needs (a query sees the keys up to itself), which is what
fused kernels compute. Letters: D hidden size, N vision tokens, V visual tokens, L layers.
"""

from dataclasses import dataclass

from ...engines.bundle.manifest import LayerType


@dataclass(frozen=True)
class DecoderShape:
    """A language model's widths: gated MLP, grouped-query attention.

    Attributes:
        layer_types: of each layer; empty where all are "full".
        window: positions a "sliding" layer looks back.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    layer_types: tuple[LayerType, ...] = ()
    window: int | None = None

    def kind(self, layer: int) -> LayerType:
        """Type of a layer."""
        return self.layer_types[layer] if self.layer_types else "full"


@dataclass(frozen=True)
class EncoderShape:
    """A vision tower's widths.

    Attributes:
        prefix: tokens beside the grid (CLS).
        patch_values: numbers in one patch, channels * frames * patch height * patch width.
        shuffle: grid tokens that become one visual token.
        projector: widths of the projector's linear layers, input first.
        projectors: times it runs on different layers' features (DeepStack).
        gated: the MLP has three matrices instead of two.
        window: grid tokens a token sees in windowed layers; 0 without any.
        full: layers that see all tokens where others have windows.
    """

    layers: int
    hidden: int
    intermediate: int
    prefix: int
    patch_values: int
    shuffle: int
    projector: tuple[int, ...]
    projectors: int = 1
    gated: bool = False
    window: int = 0
    full: tuple[int, ...] = ()


def decoder_layer(shape: DecoderShape, tokens: float, kind: LayerType) -> float:
    """FLOPs of one decoder layer over `tokens` new tokens with no past."""
    if kind == "conv":  # in and out projections; the convolution itself is a few adds a channel
        return 2.0 * tokens * shape.hidden * (4 * shape.hidden + 3 * shape.intermediate)
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    weights = shape.hidden * (2 * q + 2 * kv + 3 * shape.intermediate)
    near = tokens if kind == "full" or shape.window is None else min(tokens, shape.window)
    pairs = near * (near + 1) / 2 + (tokens - near) * near
    return 2.0 * tokens * weights + 4.0 * pairs * q


def decoder_layers(shape: DecoderShape, first: int, last: int, tokens: float) -> float:
    """FLOPs of layers first .. last."""
    return sum(decoder_layer(shape, tokens, shape.kind(i)) for i in range(first, last + 1))


def prefill(shape: DecoderShape, visual: tuple[int, ...], text: int, scoring: float = 0.0) -> float:
    """FLOPs of one prompt: V_l visual and `text` text tokens in each layer, one row of logits.

    Args:
        shape: the decoder.
        visual: V_l for every layer.
        text: text tokens.
        scoring: FLOPs of the stages' scores.
    """
    layers = sum(decoder_layers(shape, i, i, v + text) for i, v in enumerate(visual))
    return layers + 2.0 * shape.hidden * shape.vocab + scoring


def encoder_layer(shape: EncoderShape, tokens: float, layer: int) -> float:
    """FLOPs of a vision layer over `tokens` grid tokens (the prefix is added here)."""
    tokens += shape.prefix
    weights = shape.hidden * (4 * shape.hidden + (3 if shape.gated else 2) * shape.intermediate)
    seen = tokens
    if shape.window and layer not in shape.full:
        seen = min(tokens, shape.window)
    return 2.0 * tokens * weights + 4.0 * tokens * seen * shape.hidden


def smaller_grid(shape: EncoderShape, side: tuple[int, int], left: tuple[int, int]) -> float:
    """FLOPs of a smaller grid of a tile's visual tokens: a matrix along each axis that shrinks.

    Args:
        shape: the tower.
        side: rows and columns of the visual tokens.
        left: the same after it.
    """
    width = shape.projectors * shape.projector[-1]
    (h, w), (rows, columns) = side, left
    down = 2.0 * rows * h * w * width if rows < h else 0.0
    return down + (2.0 * rows * columns * w * width if columns < w else 0.0)


def merging(
    shape: EncoderShape, before: int, after: int, *, match: bool = False, restore: bool = False
) -> float:
    """FLOPs of one OIM step over the tokens of a grid, though none is a matrix product.

    Args:
        shape: the tower.
        before: grid tokens.
        after: grid tokens that it leaves.
        match: every token is normalised (3 for each number) and held against two neighbours (2 each).
        restore: what the layers added (a difference) is added to every token at the exit.
    """
    means = 2.0 * (before - after)
    similar = 5.0 * before if match else 0.0
    return shape.hidden * (means + similar + (after + before if restore else 0))


def vision(
    shape: EncoderShape, patches: int, tokens: tuple[int, ...], left: int | None = None
) -> float:
    """FLOPs of one tile: patch embedding, layers, projector.

    Args:
        shape: the tower.
        patches: grid tokens before any merging.
        tokens: grid tokens in each layer.
        left: grid tokens at the projector; None: those of the last layer.
    """
    embedding = 2.0 * patches * shape.patch_values * shape.hidden
    pairs = zip(shape.projector, shape.projector[1:], strict=False)
    projected = tokens[-1] if left is None else left
    projector = 2.0 * (projected / shape.shuffle) * sum(a * b for a, b in pairs)
    layers = sum(encoder_layer(shape, n, i) for i, n in enumerate(tokens))
    return embedding + layers + shape.projectors * projector
