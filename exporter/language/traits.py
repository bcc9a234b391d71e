"""What the decoder loop must know of a text model, from its config alone; refusals included.

Letters: L layers, V visual tokens.
"""

from dataclasses import dataclass
from typing import Any, Literal

from ...engines.bundle.manifest import LayerType
from ...errors import LuvcError
from ..planning.flops import DecoderShape

SUPPORTED = (
    "gemma", "gemma2", "gemma3_text", "gemma4_text", "glm", "glm4v_text", "glm_ocr_text",
    "lfm2", "llama", "ministral3", "mistral", "paddleocr_vl_text", "phi3", "qwen2",
    "qwen2_5_vl_text", "qwen2_vl_text", "qwen3", "qwen3_5_text", "qwen3_vl_text", "smollm3",
)  # fmt: skip
# Rotary kinds whose frequencies do not change with the prompt. "dynamic" changes them only beyond
# max_position_embeddings, which the text capacity never reaches.
ROTARY = ("default", "linear", "llama3", "yarn", "dynamic", "proportional")
LAYERS: dict[str, LayerType] = {
    "full_attention": "full",
    "sliding_attention": "sliding",
    "conv": "conv",
    "linear_attention": "linear",
}
LINEAR = ("qwen3_5_text",)
"""Text models whose linear attention is the gated delta rule of linear.py."""

PromptMask = Literal["causal", "image", "near-image", "prompt"]


@dataclass(frozen=True)
class TextTraits:
    """A text model inside its vision-language family.

    Attributes:
        layer_types: of each layer.
        window: positions a "sliding" layer looks back, itself included.
        conv_state: columns of a "conv" or "linear" layer's state.
        linear: channels of a "linear" layer's convolution, and heads, key size and value size of its state.
        unlike: what sets a layer apart from its neighbours beside its type (no rotary positions, its own
            inputs).
        logit_softcap: the logits are c * tanh(logits / c).
        path: dotted name of the text model in the vision-language model.
        mask: what the prompt's tokens see: what came before; the whole image too inside an image, in all
            layers or in "sliding" ones; the whole prompt.
        position_axes: 3 for M-RoPE.
        first_position: of the first token.
        time_scale: positions per second of video.
        deepstack: layers 0 .. deepstack - 1 whose outputs get visual features added.
        indicators: token ids whose embedding is one of the last rows of the visual embeddings' table
            (Ovis2).
        input_width: of each layer's own inputs (per-layer embeddings); 0 without any.
        input_pad: token id that a visual token's own inputs are looked up by.
        shared: last layers that read the keys and values of the last layer of their type before them.
    """

    layer_types: tuple[LayerType, ...]
    window: int | None = None
    conv_state: int = 0
    linear: tuple[int, int, int, int] | None = None
    unlike: tuple[int, ...] = ()
    logit_softcap: float | None = None
    path: str = "model.language_model"
    mask: PromptMask = "causal"
    position_axes: Literal[1, 3] = 1
    first_position: int = 0
    time_scale: float = 0.0
    deepstack: int = 0
    indicators: tuple[int, ...] = ()
    input_width: int = 0
    input_pad: int = 0
    shared: int = 0

    @property
    def prompted(self) -> int:
        """Layers that run the whole prompt; those behind them run its last token alone."""
        return len(self.layer_types) - self.shared

    def kind(self, layer: int) -> tuple:
        """Layers of one kind compute the same function of what enters them."""
        return self.layer_types[layer], self.unlike[layer : layer + 1]


def text_traits(text: Any, **family: Any) -> TextTraits:
    """Traits of a text config.

    Args:
        text: the Hugging Face text config.
        family: what its vision-language family says: path, mask, first_position, time_scale, deepstack.

    Raises:
        LuvcError: unsupported text model, rotary kind or layer type; names it and what is supported.
    """
    if text.model_type not in SUPPORTED:
        raise LuvcError(f"text model {text.model_type!r} is not supported: {', '.join(SUPPORTED)}")
    _check_rotary(text)
    window = getattr(text, "sliding_window", None)
    alike = "full_attention" if window is None else "sliding_attention"
    named = getattr(text, "layer_types", None) or [alike] * text.num_hidden_layers
    known = [n for n in LAYERS if n != "linear_attention" or text.model_type in LINEAR]
    other = sorted(set(named) - set(known))
    if other:
        raise LuvcError(
            f"layers of type {', '.join(other)} are not supported: only {', '.join(known)} are"
        )
    types: tuple[LayerType, ...] = tuple(LAYERS[n] for n in named[: text.num_hidden_layers])
    rotary = getattr(text, "rope_parameters", None) or {}
    if "sliding" in types and "mrope_section" in rotary:  # a window is counted in plain positions
        raise LuvcError(
            f"sliding windows beside rotary positions in three axes ({text.model_type}) are not supported"
        )
    return TextTraits(
        layer_types=types,
        window=window if "sliding" in types else None,
        **({"conv_state": text.conv_L_cache} if "conv" in types else _linear(text, types)),
        logit_softcap=getattr(text, "final_logit_softcapping", None),
        position_axes=3 if "mrope_section" in rotary else 1,
        **_apart(text, len(types)),
        **family,
    )


def _linear(text: Any, types: tuple[LayerType, ...]) -> dict[str, Any]:
    """Sizes of linear attention."""
    if "linear" not in types:
        return {}
    heads, key = text.linear_num_value_heads, text.linear_key_head_dim
    value = text.linear_value_head_dim
    channels = 2 * text.linear_num_key_heads * key + heads * value
    sizes = channels, heads, key, value
    return {"conv_state": text.linear_conv_kernel_dim - 1, "linear": sizes}


def _apart(text: Any, layers: int) -> dict[str, Any]:
    """What sets layers apart; those that have inputs of their own, or another's keys, are all unlike."""
    shared = getattr(text, "num_kv_shared_layers", None) or 0
    width = getattr(text, "hidden_size_per_layer_input", None) or 0
    if shared or width:
        pad = text.pad_token_id or 0
        own = {"input_width": width, "input_pad": pad, "shared": shared}
        return {"unlike": tuple(range(layers)), **own}
    return {"unlike": tuple(int(n) for n in getattr(text, "no_rope_layers", None) or ())}


def _check_rotary(text: Any) -> None:
    parameters = getattr(text, "rope_parameters", None) or {}
    for one in _each(parameters):
        kind = one.get("rope_type", "default")
        if kind not in ROTARY:
            raise LuvcError(
                f"rotary positions of kind {kind!r} are not supported: {', '.join(ROTARY)}"
            )
    ahead = getattr(text, "use_bidirectional_attention", None)
    everywhere = {"gemma3_text": bool(ahead), "gemma4_text": ahead == "all"}
    if everywhere.get(text.model_type):  # PaliGemma's text models: only in the prompt
        raise LuvcError("text models that look ahead (use_bidirectional_attention) cannot generate")


def _each(parameters: dict) -> list[dict]:
    """One set of rotary parameters, or one for each type of layer."""
    nested = [p for p in parameters.values() if isinstance(p, dict)]
    return nested or [parameters]


def decoder_shape(text: Any, traits: TextTraits) -> DecoderShape:
    """Widths of a text config for the cost model."""
    own = {
        kind: _kv_heads(text.per_layer_config[layer])
        for layer, kind in enumerate(traits.layer_types)
        if text.model_type == "gemma4_text"  # whose config answers for single layers only
    }
    full_heads = own.get("full")
    kv_heads, head_dim = own.get("sliding") or full_heads or _kv_heads(text)
    return DecoderShape(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        heads=text.num_attention_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=_intermediate(text),
        vocab=text.vocab_size,
        layer_types=traits.layer_types,
        window=traits.window,
        full_heads=full_heads,
        joint=bool(getattr(text, "attention_k_eq_v", False)),
        linear=traits.linear,
        inputs=traits.input_width,
        shared=traits.shared,
        wide=_intermediate(text) * (2 if getattr(text, "use_double_wide_mlp", False) else 1),
    )


def _kv_heads(text: Any) -> tuple[int, int]:
    """(H_kv, d) of a text config, or of one of its layers."""
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return text.num_key_value_heads, size


def _intermediate(text: Any) -> int:
    """Width of the gated MLP; LFM2 derives it (Lfm2MLP)."""
    width = text.intermediate_size
    if getattr(text, "block_auto_adjust_ff_dim", False):
        width = int(2 * width / 3)
        if text.block_ffn_dim_multiplier is not None:
            width = int(text.block_ffn_dim_multiplier * width)
            width = text.block_multiple_of * -(-width // text.block_multiple_of)
    return width
