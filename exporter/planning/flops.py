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
        full_heads: heads and head size of keys and values of "full" layers, where they have their own.
        linear: channels of a "linear" layer's convolution, heads, key size and value size of its state.
        joint: "full" layers have one matrix for keys and values.
        inputs: width of each layer's own inputs (per-layer embeddings); 0 without any.
        shared: last layers that read the keys and values of earlier ones and run a prompt's last token alone.
        wide: width of their gated MLP.
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
    full_heads: tuple[int, int] | None = None
    linear: tuple[int, int, int, int] | None = None
    joint: bool = False
    inputs: int = 0
    shared: int = 0
    wide: int = 0

    @property
    def prompted(self) -> int:
        """Layers that run the whole prompt: the first ones."""
        return self.layers - self.shared

    @property
    def prunable(self) -> int:
        """Layers before which tokens may be dropped: up to the first one whose keys and values are shared.

        Behind it layers would read sequences of different lengths.
        """
        if not self.shared:
            return self.layers
        kinds = [self.kind(i) for i in range(self.prompted)]
        return min(self.prompted - kinds[::-1].index(kind) for kind in set(kinds))

    def heads_of(self, layer: int) -> tuple[int, int]:
        """(H_kv, d) of a layer."""
        own = self.full_heads if self.kind(layer) == "full" else None
        return own or (self.kv_heads, self.head_dim)

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


def decoder_layer(shape: DecoderShape, tokens: float, layer: int) -> float:
    """FLOPs of one decoder layer over `tokens` new tokens with no past."""
    kind = shape.kind(layer)
    if kind == "conv":  # in and out projections; the convolution itself is a few adds a channel
        return 2.0 * tokens * shape.hidden * (4 * shape.hidden + 3 * shape.intermediate)
    if kind == "linear" and shape.linear:
        # in and out projections; a token reads the state, corrects it, and reads it once more
        channels, heads, key, value = shape.linear
        matrices = channels + 2 * heads * value + 2 * heads + 3 * shape.intermediate
        return 2.0 * tokens * (shape.hidden * matrices + 3 * heads * key * value)
    heads, size = shape.heads_of(layer)
    q, kv = shape.heads * size, heads * size
    near = tokens if kind == "full" or shape.window is None else min(tokens, shape.window)
    if layer >= shape.prompted:  # one query, and no keys and values of its own
        weights = shape.hidden * (2 * q + 3 * shape.wide + 2 * shape.inputs)
        return 2.0 * weights + 4.0 * near * q
    joint = shape.joint and kind == "full"
    matrices = 2 * q + (1 if joint else 2) * kv + 3 * shape.intermediate + 2 * shape.inputs
    pairs = near * (near + 1) / 2 + (tokens - near) * near
    return 2.0 * tokens * shape.hidden * matrices + 4.0 * pairs * q


def decoder_layers(shape: DecoderShape, first: int, last: int, tokens: float) -> float:
    """FLOPs of layers first .. last."""
    return sum(decoder_layer(shape, tokens, i) for i in range(first, last + 1))


def layer_inputs(shape: DecoderShape, tokens: float) -> float:
    """FLOPs of projecting embeddings to all layers' own inputs."""
    return 2.0 * tokens * shape.hidden * shape.layers * shape.inputs


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
