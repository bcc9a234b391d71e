"""Small configurations of the families: published structure, widths that export in seconds."""

from collections.abc import Callable, Mapping
from typing import Any

from .gemma4_shapes import gemma4, gemma4_large
from .prompts import OVIS_MARKS
from .towers_and_texts import (
    HEAD_DIM,
    HIDDEN,
    LAYERS,
    TEXTS,
    clip,
    mrope,
    pixtral,
    qwen_vit,
    siglip,
    text,
    vit,
)


def internvl(tokens: Any, ids: Callable) -> dict[str, Any]:
    vision = vit(2, 168) | {"image_size": [168, 168], "patch_size": [14, 14]}
    return {
        "vision_config": vision,
        "text_config": text("qwen2", tokens),
        "image_token_id": ids("<IMG_CONTEXT>"),
        "image_seq_length": 36,
        "downsample_ratio": 0.5,
    }


def llava(tokens: Any, ids: Callable) -> dict[str, Any]:
    return {
        "vision_config": clip(4, 112),
        "text_config": text("llama", tokens, **TEXTS["llama"]),
        "image_token_index": ids("<image>"),
        "image_seq_length": 64,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }


def llava_next(tokens: Any, ids: Callable) -> dict[str, Any]:
    mistral = text("mistral", tokens, head_dim=HEAD_DIM, sliding_window=None)
    return llava(tokens, ids) | {
        "text_config": mistral,
        "image_grid_pinpoints": [[112, 224], [224, 112], [224, 224], [336, 112], [112, 336]],
    }


def llava_onevision(tokens: Any, ids: Callable) -> dict[str, Any]:
    return {
        "vision_config": siglip(3, 98),
        "text_config": text("qwen2", tokens),
        "image_token_index": ids("<image>"),
        "video_token_index": ids("<video>"),
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": [[98 * a, 98 * b] for a in (1, 2, 3) for b in (1, 2, 3)],
    }


def qwen_ids(ids: Callable) -> dict[str, int]:
    return {
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
    }


def qwen2_vl(tokens: Any, ids: Callable) -> dict[str, Any]:
    vision = {"depth": 3, "embed_dim": 128, "hidden_size": HIDDEN, "num_heads": 2, "mlp_ratio": 2}
    vision |= {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
    rope = mrope([8, 12, 12], 1e6)
    return {
        "vision_config": vision,
        "text_config": text("qwen2_vl_text", tokens, **rope),
    } | qwen_ids(ids)


def qwen2_5_vl(tokens: Any, ids: Callable) -> dict[str, Any]:
    rope = mrope([8, 12, 12], 1e6)
    return {
        "vision_config": qwen_vit(14, window_size=112, fullatt_block_indexes=[2]),
        "text_config": text("qwen2_5_vl_text", tokens, **rope),
    } | qwen_ids(ids)


def qwen3_vl(tokens: Any, ids: Callable) -> dict[str, Any]:
    taps = {"num_position_embeddings": 64, "deepstack_visual_indexes": [1, 2]}
    rope = mrope([12, 10, 10], 5e6, mrope_interleaved=True)
    return {
        "vision_config": qwen_vit(16, **taps),
        "text_config": text("qwen3_vl_text", tokens, head_dim=HEAD_DIM, **rope),
    } | qwen_ids(ids)


def qwen3_5(tokens: Any, ids: Callable) -> dict[str, Any]:
    linear = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_conv_kernel_dim": 4}
    linear |= {"linear_key_head_dim": 32, "linear_value_head_dim": 32, "head_dim": HEAD_DIM}
    linear |= {"layer_types": ["linear_attention"] * 3 + ["full_attention"]}
    rope = mrope([4, 2, 2], 1e7, mrope_interleaved=True, partial_rotary_factor=0.25)
    return {
        "vision_config": qwen_vit(16, num_position_embeddings=64),
        "text_config": text("qwen3_5_text", tokens, **linear, **rope),
    } | qwen_ids(ids)


def glm4v(tokens: Any, ids: Callable) -> dict[str, Any]:
    rope = mrope([4, 6, 6], 1e4, partial_rotary_factor=0.5)
    return {
        "vision_config": qwen_vit(14, image_size=112),
        "text_config": text("glm4v_text", tokens, **rope),
        "image_token_id": ids("<|image|>"),
        "video_token_id": ids("<|video|>"),
        "image_start_token_id": ids("<|begin_of_image|>"),
        "image_end_token_id": ids("<|end_of_image|>"),
        "video_start_token_id": ids("<|begin_of_video|>"),
        "video_end_token_id": ids("<|end_of_video|>"),
    }


def glm_ocr(tokens: Any, ids: Callable) -> dict[str, Any]:
    heads = {"head_dim": 128, "tie_word_embeddings": False}  # twice as wide as the hidden states
    rope = mrope([16, 24, 24], 1e4, partial_rotary_factor=1.0)
    return glm4v(tokens, ids) | {
        "vision_config": qwen_vit(14, attention_bias=True),
        "text_config": text("glm_ocr_text", tokens, **heads, **rope),
    }


def lighton_ocr(tokens: Any, ids: Callable) -> dict[str, Any]:
    return {
        "vision_config": pixtral(3),
        "text_config": text("qwen3", tokens, head_dim=128, rms_norm_eps=1e-6),
        "image_token_id": ids("<|image_pad|>"),
        "spatial_merge_size": 2,
    }


def mistral3(tokens: Any, ids: Callable) -> dict[str, Any]:
    heads = {"head_dim": 128, "tie_word_embeddings": False, "sliding_window": None}
    return {
        "vision_config": pixtral(3),
        "text_config": text("mistral", tokens, **heads),
        "image_token_index": ids("[IMG]"),
        "spatial_merge_size": 2,
        "vision_feature_layer": -1,
    }


def paddleocr_vl(tokens: Any, ids: Callable) -> dict[str, Any]:
    vision = vit(3, 120) | {"hidden_size": 144, "spatial_merge_size": 2}  # heads of 72
    heads = {"head_dim": 128, "num_key_value_heads": 1, "tie_word_embeddings": False}
    return {
        "vision_config": vision,
        "text_config": text("paddleocr_vl_text", tokens, **heads, **mrope([16, 24, 24], 5e5)),
        "image_token_id": ids("<|IMAGE_PLACEHOLDER|>"),
        "vision_start_token_id": ids("<|IMAGE_START|>"),
        "vision_end_token_id": ids("<|IMAGE_END|>"),
    }


def smolvlm(tokens: Any, ids: Callable) -> dict[str, Any]:
    return {
        "vision_config": vit(3, 192, 16),
        "text_config": text("llama", tokens, head_dim=HEAD_DIM),
        "image_token_id": ids("<image>"),
        "scale_factor": 2,
    }


idefics3 = smolvlm


def paligemma(tokens: Any, ids: Callable) -> dict[str, Any]:
    return {
        "vision_config": siglip(3, 168, projection_dim=HIDDEN),
        "text_config": text("gemma", tokens, head_dim=HEAD_DIM),
        "image_token_index": ids("<image>"),
        "projection_dim": HIDDEN,
        "hidden_size": HIDDEN,
    }


def gemma3(tokens: Any, ids: Callable) -> dict[str, Any]:
    gemma = text("gemma3_text", tokens, **TEXTS["gemma2"])
    return {
        "vision_config": siglip(3, 224),
        "text_config": gemma,
        "image_token_index": ids("<image_soft_token>"),
        "boi_token_index": ids("<start_of_image>"),
        "eoi_token_index": ids("<end_of_image>"),
        "mm_tokens_per_image": 16,
    }


def ovis2(tokens: Any, ids: Callable) -> dict[str, Any]:
    vision = vit(3, 168, vocab_size=256, hidden_stride=2, num_visual_indicator_tokens=5)
    return {
        "vision_config": vision | {"tokenize_function": "softmax"},
        "text_config": text("qwen2", tokens),
        "image_token_id": ids("<IMG_ATOM>"),
        "visual_indicator_token_ids": [ids(t) for t in OVIS_MARKS],
        "vocab_size": len(tokens),
        "hidden_size": HIDDEN,
    }


def lfm2_vl(tokens: Any, ids: Callable) -> dict[str, Any]:
    vision = vit(3, 0, 16, model_type="siglip2_vision_model", num_patches=64, vision_use_head=False)
    del vision["image_size"]
    lfm2 = text("lfm2", tokens, block_auto_adjust_ff_dim=False)
    lfm2["layer_types"] = ["conv", "full_attention", "conv", "full_attention"]
    return {
        "vision_config": vision,
        "text_config": lfm2,
        "image_token_id": ids("<image>"),
        "downsample_factor": 2,
        "projector_hidden_size": HIDDEN,
    }


FAMILIES: Mapping[str, Callable[[Any, Callable], dict[str, Any]]] = {
    f.__name__: f
    for f in (
        internvl,
        llava,
        llava_next,
        llava_onevision,
        qwen2_vl,
        qwen2_5_vl,
        qwen3_vl,
        qwen3_5,
        glm4v,
        glm_ocr,
        lighton_ocr,
        mistral3,
        paddleocr_vl,
        smolvlm,
        paligemma,
        gemma3,
        gemma4,
        ovis2,
        lfm2_vl,
    )
} | {"idefics3": idefics3}


def paligemma_gemma2(tokens: Any) -> dict[str, Any]:
    return {"text_config": text("gemma2", tokens, **TEXTS["gemma2"])}


def attention_only(tokens: Any) -> dict[str, Any]:
    return {"text_config": {"layer_types": ["full_attention"] * LAYERS}}


def with_text(model_type: str, **more) -> Callable[[Any], dict[str, Any]]:
    return lambda tokens: {"text_config": text(model_type, tokens, **TEXTS[model_type], **more)}


VARIANTS: Mapping[str, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    "gemma4-large": ("gemma4", gemma4_large),
    "paligemma-gemma2": ("paligemma", with_text("gemma2")),
    "lfm2_vl-attention": ("lfm2_vl", attention_only),
    "mistral3-ministral3": ("mistral3", with_text("ministral3")),
    "llava-mistral": ("llava", with_text("mistral")),
    **{
        f"internvl-{name}": ("internvl", with_text(name))
        for name in ("mistral", "phi3", "smollm3", "glm", "gemma2")
    },
}
