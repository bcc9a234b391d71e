"""Small configurations of Gemma 4."""

from collections.abc import Callable
from typing import Any

from .towers_and_texts import LAYERS, TEXTS, text, vit


def gemma4(tokens: Any, ids: Callable) -> dict[str, Any]:
    """Shaped like E2B: two layers share keys and values, each has its own inputs, and there is audio."""
    audio = {"model_type": "gemma4_audio", "hidden_size": 64, "num_hidden_layers": 1}
    audio |= {"num_attention_heads": 2, "subsampling_conv_channels": [8, 4], "output_proj_dims": 64}
    vision = vit(3, 0, 4, model_type="gemma4_vision", head_dim=64, num_key_value_heads=2)
    del vision["image_size"]
    gemma = text("gemma4_text", tokens, **TEXTS["gemma4_text"])
    return {
        "vision_config": vision | {"use_clipped_linears": True, "position_embedding_size": 64},
        "audio_config": audio,
        "text_config": gemma | {"vocab_size_per_layer_input": len(tokens)},
        "image_token_id": ids("<|image|>"),
        "video_token_id": ids("<|video|>"),
        "audio_token_id": ids("<|audio|>"),
        "boi_token_id": ids("<|image>"),
        "eoi_token_id": ids("<image|>"),
        "boa_token_id": ids("<|audio>"),
        "eoa_token_index": ids("<audio|>"),
    }


def gemma4_large(tokens: Any) -> dict[str, Any]:
    """Shaped like the 31B: sliding layers look both ways inside an image, keys are values elsewhere."""
    large = {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0, "attention_k_eq_v": True}
    large |= {"use_bidirectional_attention": "vision", "num_global_key_value_heads": 1}
    large |= {"use_double_wide_mlp": False, "num_hidden_layers": LAYERS}
    large["layer_types"] = ["sliding_attention", "full_attention"] * 2
    tower = {"use_clipped_linears": False, "standardize": True}
    return {"text_config": large, "vision_config": tower, "audio_config": None}
