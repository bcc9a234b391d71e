"""Writes a small InternVL checkpoint with random weights and real tokenizer and processor files.

It stands in for a trained checkpoint where none can be downloaded: every file is what
`from_pretrained` expects, only the weights (and so the answers) are random.

    python -m luvc.tools.demo.random_checkpoint demo/model
"""

from pathlib import Path
from typing import Annotated, Any

import typer

SPECIAL = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
TURNS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\n' -}}
{%- if message['content'] is string -%}{{- message['content'] -}}
{%- else -%}{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{- '<IMG_CONTEXT>\n' -}}
{%- elif part['type'] == 'text' -%}{{- part['text'] -}}{%- endif -%}
{%- endfor -%}{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
"""


def corpus() -> list[str]:
    """English for the tokenizer: the docstrings of the standard library, as its files hold them.

    Read off the sources, because libraries replace functions of these modules while they run.
    """
    import ast
    import inspect
    import json
    import pathlib
    import statistics
    import textwrap
    import threading

    found = []
    for module in (json, pathlib, statistics, textwrap, threading, inspect):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                found.append(ast.get_docstring(node))
    return [text for text in found if text]


def tokenizer(vocabulary: int = 1024) -> Any:
    """A byte-level BPE tokenizer with InternVL's special tokens and a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[*TURNS, *SPECIAL.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=TURNS[0],
        eos_token=TURNS[2],
        extra_special_tokens=SPECIAL,
        chat_template=CHAT_TEMPLATE,
    )


def vision_config(hidden: int, layers: int, image: int) -> dict[str, Any]:
    """A small InternViT for square tiles."""
    return {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, hidden // 64),
        "image_size": [image, image],
        "patch_size": [14, 14],
    }


def config(
    tokens: Any,
    *,
    text: str = "qwen2",
    layers: int = 8,
    hidden: int = 256,
    head_dim: int = 64,
    kv_heads: int | None = None,
    intermediate: int | None = None,
    vision_layers: int = 8,
    vision_hidden: int = 128,
    image: int = 336,
    tied: bool = True,
) -> Any:
    """An InternVLConfig; `text` is qwen2, qwen3 or llama, `image` the tile's side in pixels."""
    from transformers import InternVLConfig

    heads = hidden // head_dim
    text_config = {
        "model_type": text,
        "vocab_size": len(tokens),
        "hidden_size": hidden,
        "intermediate_size": intermediate or 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads or max(1, heads // 2),
        "head_dim": head_dim,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": tied,
        "pad_token_id": tokens.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokens.eos_token_id,
    }
    return InternVLConfig(
        vision_config=vision_config(vision_hidden, vision_layers, image),
        text_config=text_config,
        image_token_id=tokens.convert_tokens_to_ids(SPECIAL["context_image_token"]),
        tie_word_embeddings=tied,
    )


def randomise(model: Any, seed: int) -> None:
    """Weights with structure to see: positions differ, logits spread, so that argmax is not a tie."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "position_embeddings" in name or "cls_token" in name:
                p.normal_(0, 0.5, generator=generator)
            elif "embed_tokens" in name or "lm_head" in name:
                p.normal_(0, 1.0 / p.shape[1] ** 0.25, generator=generator)
            elif p.dim() > 1:
                p.normal_(0, 1.5 / p[0].numel() ** 0.5, generator=generator)
            elif "norm" in name and name.endswith("weight"):
                p.normal_(1, 0.2, generator=generator)
            elif name.endswith("bias"):
                p.normal_(0, 0.1, generator=generator)


def write(
    folder: Path,
    *,
    seed: int = 0,
    max_patches: int = 12,
    shard: str = "5GB",
    endless: bool = False,
    **shape,
) -> Path:
    """Write the checkpoint.

    Args:
        folder: where to; made when missing.
        seed: of the weights.
        max_patches: tiles the image processor may cut.
        shard: largest weight file, as `save_pretrained` takes it.
        endless: no answer ends before its last token, for loads in which all are to be as long.
        shape: see `config`.

    Returns:
        The folder.
    """
    from transformers import (
        GenerationConfig,
        GotOcr2ImageProcessorPil,
        InternVLForConditionalGeneration,
    )

    tokens = tokenizer()
    settings = config(tokens, **shape)
    model = InternVLForConditionalGeneration(settings).eval()
    randomise(model, seed)
    if endless:  # its logit is 0, and of a thousand random ones some are larger
        model.lm_head.weight.data[tokens.eos_token_id] = 0
    model.generation_config = GenerationConfig(
        eos_token_id=tokens.eos_token_id, pad_token_id=tokens.pad_token_id, do_sample=False
    )
    height, width = settings.vision_config.image_size
    images = GotOcr2ImageProcessorPil(
        size={"height": height, "width": width}, crop_to_patches=True, max_patches=max_patches
    )
    model.save_pretrained(folder, max_shard_size=shard)
    tokens.save_pretrained(folder)
    images.save_pretrained(folder)
    return Path(folder)


def photograph() -> Path:
    """A real photograph: "Coffee" by Rachel Michetti, CC0, from scikit-image's wheel."""
    import skimage

    return Path(skimage.__file__).parent / "data" / "coffee.png"


def main(folder: Annotated[Path, typer.Argument(help="Where to write the checkpoint.")]) -> None:
    """Write the demo checkpoint (random weights) and the demo photograph beside it."""
    import shutil

    write(folder)
    shutil.copy(photograph(), folder.parent / "photo.png")
    typer.echo(
        f"wrote {folder} (random weights: answers are noise) and {folder.parent / 'photo.png'}"
    )


if __name__ == "__main__":
    typer.run(main)
