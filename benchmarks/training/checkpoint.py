"""The pocket VLM's architecture and its checkpoint directory in Hugging Face form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luvc.errors import LuvcError
from luvc.tools.pocket.vocabulary import SIZE

from .tokenizer import IMAGE, VOCABULARY, build_tokenizer

if TYPE_CHECKING:
    from transformers import (
        InternVLConfig,
        InternVLForConditionalGeneration,
        PreTrainedTokenizerFast,
    )

PATCH = 16
VISUAL_TOKENS = (SIZE // PATCH) ** 2
"""Visual tokens of a picture, 144: a patch each, for pixel shuffle joins none."""
MAX_BYTES = 16 << 20
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Per-channel normalisation of pixels in 0 .. 1."""

HEAD = 64
LAYERS = 8
VISION_WIDTH = 192
LANGUAGE_WIDTH = 256
"""Four query heads: TensorRT-RTX has no one-query attention kernel for fewer."""
KV_HEADS = 2
INTERMEDIATE = 384


def vision_config(layers: int, scale: int = 1) -> dict[str, object]:
    """Settings of the vision tower, for pictures of `scale` times 192 pixels along an edge."""
    return {
        "hidden_size": VISION_WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": VISION_WIDTH // HEAD,
        "intermediate_size": 4 * VISION_WIDTH,
        "attention_bias": True,
        "image_size": [SIZE * scale, SIZE * scale],
        "patch_size": [PATCH, PATCH],
        "layer_scale_init_value": 1.0,
        "use_mean_pooling": True,
    }


def language_config(layers: int) -> dict[str, object]:
    """Settings of the language model."""
    return {
        "model_type": "qwen2",
        "hidden_size": LANGUAGE_WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": LANGUAGE_WIDTH // HEAD,
        "num_key_value_heads": KV_HEADS,
        "intermediate_size": INTERMEDIATE,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "tie_word_embeddings": True,
    }


def build_config(
    tokenizer: PreTrainedTokenizerFast, layers: int = LAYERS, scale: int = 1
) -> InternVLConfig:
    """Describe the pocket VLM: 8 vision layers, 8 language layers (fewer to grow from), heads of 64.

    At scale 2, pocket-hd, pixel shuffle joins 2 x 2 patches: as many visual tokens of finer pictures.
    """
    from transformers import InternVLConfig

    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return InternVLConfig.from_dict(
        {
            "vision_config": vision_config(layers, scale),
            "text_config": language_config(layers) | ends,
            "image_token_id": tokenizer.convert_tokens_to_ids(IMAGE),
            "image_seq_length": VISUAL_TOKENS,
            "downsample_ratio": 1 / scale,
            "tie_word_embeddings": True,
        }
        | ends
    )


def build_model(config: InternVLConfig, seed: int = 0) -> InternVLForConditionalGeneration:
    """Build the model with random weights that suit its width, float32."""
    import torch
    from transformers import InternVLForConditionalGeneration

    from .initial import initialise

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = InternVLForConditionalGeneration(config)
        initialise(model)
    return model


def load_checkpoint(directory: Path) -> InternVLForConditionalGeneration:
    """The weights of a checkpoint directory, float32, grown to LAYERS layers where it has fewer.

    Raises:
        LuvcError: there is no checkpoint.
    """
    import torch
    from transformers import InternVLForConditionalGeneration

    from .initial import grown

    if not (directory / "model.safetensors").is_file():
        raise LuvcError(f"{directory} holds no model.safetensors to start from.")
    return grown(InternVLForConditionalGeneration.from_pretrained(directory, dtype=torch.float32))


def scale_of(model: InternVLForConditionalGeneration) -> int:
    """Pixels along an edge of a model's pictures for each of a scene's."""
    vision: Any = model.config.vision_config
    return vision.image_size[0] // SIZE


def image_processor_config(scale: int = 1) -> dict[str, object]:
    """preprocessor_config.json: one tile of `scale` times 192 x 192, normalised per channel."""
    return {
        "image_processor_type": "GotOcr2ImageProcessor",
        "processor_class": "InternVLProcessor",
        "crop_to_patches": False,
        "min_patches": 1,
        "max_patches": 12,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": SIZE * scale, "width": SIZE * scale},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }


def save_processor(tokenizer: PreTrainedTokenizerFast, directory: Path, scale: int = 1) -> None:
    """Write the tokenizer, chat template, image processor and processor files."""
    tokenizer.save_pretrained(directory)
    _write_json(directory / "preprocessor_config.json", image_processor_config(scale))
    _write_json(
        directory / "processor_config.json",
        {"processor_class": "InternVLProcessor", "image_seq_length": VISUAL_TOKENS},
    )


def save_checkpoint(
    model: InternVLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, directory: Path
) -> int:
    """Write a directory that `from_pretrained` of transformers loads, with fp16 weights.

    Args:
        model: the model; a half-precision copy is written, the model itself is left as it is.
        tokenizer: its tokenizer.
        directory: folder to write to, created if missing.

    Returns:
        Size of the weights file in bytes.

    Raises:
        LuvcError: the weights are larger than 16 MiB.
    """
    import copy

    from transformers import GenerationConfig

    directory.mkdir(parents=True, exist_ok=True)
    half = copy.deepcopy(model).half()
    half.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=16,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    half.save_pretrained(directory)
    save_processor(tokenizer, directory, scale_of(model))
    size = (directory / "model.safetensors").stat().st_size
    if size > MAX_BYTES:
        raise LuvcError(
            f"The checkpoint takes {size} bytes, more than the {MAX_BYTES} that the repository "
            "holds; make it narrower."
        )
    return size


def load_tokenizer(directory: Path | None = None) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a checkpoint directory, or learn it anew."""
    if directory is None:
        return build_tokenizer()
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory)


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
