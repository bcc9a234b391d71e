"""Random-weight checkpoints that every peer reads: Qwen2-VL and InternVL shapes."""

from pathlib import Path
from typing import Any

QWEN_TOKENS = {
    "image": "<|image_pad|>",
    "video": "<|video_pad|>",
    "vision_start": "<|vision_start|>",
    "vision_end": "<|vision_end|>",
}
QWEN_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}{{- message['content'] -}}
{%- else -%}{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part['type'] == 'text' -%}{{- part['text'] -}}{%- endif -%}
{%- endfor -%}{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
# decoder heavier than vision, as in real models; "2b" is Qwen2-VL-2B's own shape
SHAPES = {
    "tiny": {"layers": 4, "hidden": 256, "intermediate": 512, "vision_layers": 2, "vision": 128},
    "small": {
        "layers": 12,
        "hidden": 1024,
        "intermediate": 4096,
        "vision_layers": 4,
        "vision": 256,
    },
    "2b": {"layers": 28, "hidden": 1536, "intermediate": 8960, "vision_layers": 32, "vision": 1280},
}


def write(folder: Path, family: str, shape: str) -> Path:
    """Write a checkpoint unless it is there; returns the folder."""
    if not (folder / "config.json").is_file():
        (_qwen2_vl if family == "qwen2-vl" else _internvl)(folder, SHAPES[shape])
    return folder


def _internvl(folder: Path, s: dict[str, int]) -> None:
    from luvc.tools.demo import random_checkpoint

    random_checkpoint.write(
        folder,
        layers=s["layers"],
        hidden=s["hidden"],
        intermediate=s["intermediate"],
        vision_layers=s["vision_layers"],
        vision_hidden=s["vision"],
        image=448,
    )


def _qwen2_vl(folder: Path, s: dict[str, int]) -> None:
    from transformers import GenerationConfig, Qwen2VLConfig, Qwen2VLForConditionalGeneration
    from transformers import Qwen2VLImageProcessorPil as Images

    from luvc.tools.demo import random_checkpoint

    tokens = random_checkpoint.tokenizer()
    tokens.add_special_tokens({"additional_special_tokens": list(QWEN_TOKENS.values())})
    tokens.chat_template = QWEN_TEMPLATE
    text = _qwen_text(s, vocabulary=-(-len(tokens) // 8) * 8)
    vision = {
        "depth": s["vision_layers"],
        "embed_dim": s["vision"],
        "hidden_size": s["hidden"],
        "num_heads": s["vision"] // (80 if s["vision"] == 1280 else 64),
        "mlp_ratio": 4,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    ids = {f"{k}_token_id": tokens.convert_tokens_to_ids(v) for k, v in QWEN_TOKENS.items()}
    config = Qwen2VLConfig(vision_config=vision, text_config=text, tie_word_embeddings=False, **ids)
    model = Qwen2VLForConditionalGeneration(config).eval()
    random_checkpoint.randomise(model, seed=0)
    model.generation_config = GenerationConfig(
        eos_token_id=tokens.eos_token_id, pad_token_id=tokens.pad_token_id, do_sample=False
    )
    model.save_pretrained(folder, max_shard_size="100GB")
    _name_as_on_the_hub(folder / "model.safetensors")
    tokens.save_pretrained(folder)
    Images(min_pixels=56 * 56, max_pixels=28 * 28 * 1280).save_pretrained(folder)


def _qwen_text(s: dict[str, int], vocabulary: int) -> dict[str, Any]:
    heads = (
        s["hidden"] // 128 if s["hidden"] % 128 == 0 and s["hidden"] > 1024 else s["hidden"] // 64
    )
    head = s["hidden"] // heads
    third = head // 2 // 8
    return {
        "model_type": "qwen2_vl_text",
        "vocab_size": vocabulary,
        "hidden_size": s["hidden"],
        "intermediate_size": s["intermediate"],
        "num_hidden_layers": s["layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 6 if head == 128 else heads // 4),
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [2 * third, 3 * third, 3 * third],
        },
    }


def _name_as_on_the_hub(file: Path) -> None:
    """Rename the tensors to the names of the Hub's checkpoints, which other exporters expect."""
    from safetensors.torch import load_file, save_file

    renamed = {k.replace("model.visual.", "visual."): v for k, v in load_file(file).items()}
    renamed = {k.replace("model.language_model.", "model."): v for k, v in renamed.items()}
    save_file(renamed, file, metadata={"format": "pt"})
