"""Parts of the small configurations: vision towers and text models."""

from typing import Any

LAYERS = 4
HIDDEN = 256
HEADS = 4
HEAD_DIM = 64
WINDOW = 24  # shorter than a prompt, so that a sliding window is seen


def text(model_type: str, tokens: Any, **more) -> dict[str, Any]:
    """A text config of 4 layers, 4 query and 2 key/value heads of 64."""
    return {
        "model_type": model_type,
        "vocab_size": len(tokens),
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS // 2,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "pad_token_id": tokens.pad_token_id,
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
    } | more


# Text models that can stand behind internvl and llava, with what each is known for.
SLIDING = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
TEXTS: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "llama": {"head_dim": HEAD_DIM},
    "mistral": {"head_dim": HEAD_DIM, "sliding_window": WINDOW},
    "phi3": {"sliding_window": 2047, "original_max_position_embeddings": 8192},
    "smollm3": {"no_rope_layers": [1, 1, 1, 0]},
    "glm": {"head_dim": HEAD_DIM},
    "ministral3": {
        "head_dim": 128,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "rope_parameters": {  # queries grow with their position: by steps of 16, not 16,384
            "rope_type": "yarn",
            "rope_theta": 1e6,
            "factor": 16.0,
            "original_max_position_embeddings": 16,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1,
        },
    },
    "gemma2": {
        "head_dim": HEAD_DIM,
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": 48,  # not the head size: the scale must come from here
        "layer_types": SLIDING,
    },
}


SLIDES, SEES = "sliding_attention", "full_attention"
TEXTS["gemma4_text"] = {
    "num_hidden_layers": 7,
    "num_kv_shared_layers": 2,
    "layer_types": [SLIDES, SLIDES, SEES, SLIDES, SEES, SLIDES, SEES],
    "use_double_wide_mlp": True,
    "head_dim": HEAD_DIM // 2,
    "global_head_dim": HEAD_DIM,
    "hidden_size_per_layer_input": 16,
    "sliding_window": WINDOW,
    "final_logit_softcapping": 30.0,
}


def mrope(sections: list[int], theta: float, **more) -> dict[str, Any]:
    """Rotary parameters of three axes; the sections add up to half the rotated head size."""
    kind = {"rope_type": "default", "mrope_section": sections, "rope_theta": theta} | more
    return {"rope_parameters": kind}


def vit(layers: int, image: int, patch: int = 14, **more) -> dict[str, Any]:
    """A vision config with 2 heads of 64."""
    return {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "image_size": image,
        "patch_size": patch,
    } | more


def siglip(layers: int, image: int, **more) -> dict[str, Any]:
    return vit(layers, image, model_type="siglip_vision_model", vision_use_head=False, **more)


def clip(layers: int, image: int) -> dict[str, Any]:
    return vit(layers, image, model_type="clip_vision_model", projection_dim=64)


def qwen_vit(patch: int, **more) -> dict[str, Any]:
    return {
        "depth": 4,
        "hidden_size": 128,
        "num_heads": 2,
        "intermediate_size": 256,
        "out_hidden_size": HIDDEN,
        "patch_size": patch,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    } | more


def pixtral(layers: int) -> dict[str, Any]:
    more = {"model_type": "pixtral", "hidden_act": "silu", "rope_parameters": {"rope_theta": 1e4}}
    return vit(layers, 196, **more) | {"head_dim": 64}
