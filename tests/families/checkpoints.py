"""Small checkpoint directories of every family, with the files that published checkpoints have."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from luvc.tools.demo.random_checkpoint import randomise

from . import shapes
from .preprocessing import IMAGES, PROCESSORS, VIDEOS
from .prompts import WORDS, tokenizer

NAMES = (*shapes.FAMILIES, *shapes.VARIANTS)


def family_of(name: str) -> str:
    """The model_type of a name in `NAMES`."""
    return shapes.VARIANTS[name][0] if name in shapes.VARIANTS else name


def merged(base: Any, change: Any) -> Any:
    """Nested dictionaries, the second over the first; another model_type replaces its config."""
    if not (isinstance(base, Mapping) and isinstance(change, Mapping)):
        return change
    if change.get("model_type", base.get("model_type")) != base.get("model_type"):
        return change
    return {**base, **{k: merged(base.get(k), v) for k, v in change.items()}}


def settings(name: str, tokens: Any, changes: Mapping[str, Any]) -> Any:
    """The configuration object of a name."""
    from transformers import AutoConfig

    family = family_of(name)
    values = shapes.FAMILIES[family](tokens, tokens.convert_tokens_to_ids)
    if name in shapes.VARIANTS:
        values = merged(values, shapes.VARIANTS[name][1](tokens))
    tied = values["text_config"]["tie_word_embeddings"]
    return AutoConfig.for_model(family, **merged({"tie_word_embeddings": tied} | values, changes))


def structure(model: Any, seed: int) -> None:
    """Random weights in which every part is seen, also those that start as zeros or ones."""
    import torch

    randomise(model, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            module = ("", *name.split("."))[-2]
            if ("pos" in name and "emb" in name) or "class_embedding" in name:
                p.normal_(0, 0.5, generator=generator)
            elif "lambda" in name:  # layer scales
                p.uniform_(0.5, 1.0, generator=generator)
            elif "image_newline" in name:
                p.normal_(0, 0.5, generator=generator)
            elif module == "visual_embeddings_table":
                p.normal_(0, 1.0, generator=generator)
            elif module == "head_linear":  # Ovis2's softmax over visual words: sharp enough to tell
                p.normal_(0, 4 / p.shape[1] ** 0.5, generator=generator)
            elif p.std() == 0:  # a norm by another name
                p.add_(0.2 * torch.randn(p.shape, generator=generator))
        for name, module in model.named_modules():
            if type(module).__name__.startswith("Gemma"):
                _gemma(name, module, generator)
        for name, buffer in model.named_buffers():
            _stored(name.rpartition(".")[2], buffer, generator)


def _stored(name: str, buffer: Any, generator: Any) -> None:
    """What Gemma 4 stores beside its parameters: bounds that cut a little off, scales, a shift."""
    if name in ("input_min", "output_min", "input_max", "output_max"):
        buffer.uniform_(1.5, 2.5, generator=generator)
        buffer.mul_(-1 if name.endswith("min") else 1)
    elif name in ("layer_scalar", "std_scale"):
        buffer.uniform_(0.5, 1.0, generator=generator)
    elif name == "std_bias":
        buffer.normal_(0, 1.0, generator=generator)


def _gemma(name: str, module: Any, generator: Any) -> None:
    """Gemma scales embeddings by sqrt(D) and norms by 1 + weight.

    Tied and scaled, larger embeddings would make every token predict itself; attention must be sharp,
    or the norm after it makes the mean of all values the loudest; logits must be large enough for a
    soft cap to change them.
    """
    if hasattr(module, "embed_tokens"):
        module.embed_tokens.weight.normal_(0, 0.02, generator=generator)
    if hasattr(getattr(module, "q_proj", None), "weight"):
        module.q_proj.weight.mul_(3)
    if "RMSNorm" in type(module).__name__ and hasattr(module, "weight"):
        centres = {"language_model.norm": 9, "q_norm": 1}
        if type(module).__name__.startswith(
            "Gemma4"
        ):  # which scales by its weight, and scores by 1
            centres = {"language_model.norm": 10, "q_norm": 0.2, "": 1}
        centre = next((c for end, c in centres.items() if name.endswith(end)), 0)
        module.weight.normal_(centre, 0.2, generator=generator)


@cache
def _tokens(family: str) -> Any:
    return tokenizer(family)


def write_processor(family: str, folder: Path, **images) -> Any:
    """Write tokenizer, image processor and processor files.

    Args:
        family: a model_type.
        folder: an existing directory.
        images: settings of the image processor to change.

    Returns:
        The tokenizer.
    """
    import transformers

    tokens = _tokens(family)
    tokens.save_pretrained(folder)
    name, values = IMAGES[family]
    values = values | images
    if hasattr(transformers, f"{name}Pil"):
        values = getattr(transformers, f"{name}Pil")(**values).to_dict()
    processor, fields = PROCESSORS[family]
    values |= {"image_processor_type": name, "processor_class": processor}
    if family == "paligemma":
        patch = shapes.FAMILIES[family](tokens, len)["vision_config"]["patch_size"]
        values["image_seq_length"] = (values["size"]["height"] // patch) ** 2
    dump(folder / "preprocessor_config.json", values)
    dump(folder / "processor_config.json", {"processor_class": processor} | fields)
    if family in VIDEOS:
        dump(folder / "video_preprocessor_config.json", VIDEOS[family])
    return tokens


def dump(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def write(
    name: str, folder: Path, *, seed: int = 0, images: Mapping[str, Any] | None = None, **changes
) -> Path:
    """Write a complete checkpoint.

    Args:
        name: one of `NAMES`: a model_type, or a variant such as "internvl-phi3".
        folder: where to; made when missing.
        seed: of the weights.
        images: settings of the image processor to change.
        changes: fields of the config, nested: text_config={"num_hidden_layers": 8}.

    Returns:
        The folder.
    """
    import torch
    from transformers import AutoModelForImageTextToText, GenerationConfig

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    family = family_of(name)
    tokens = write_processor(family, folder, **(images or {}))
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # for what `structure` leaves as initialised
        model = AutoModelForImageTextToText.from_config(settings(name, tokens, changes)).eval()
    structure(model, seed)
    model.generation_config = GenerationConfig(
        bos_token_id=tokens.bos_token_id,
        eos_token_id=stops(family, tokens),
        pad_token_id=tokens.pad_token_id,
        do_sample=False,
    )
    model.save_pretrained(folder)
    return folder


def stops(family: str, tokens: Any) -> list[int]:
    """Ids that end an answer: the turn's end, and the text's where it is another token."""
    other = {
        "gemma3": "<eos>",
        "gemma4": "<eos>",
        "glm4v": "<|endoftext|>",
        "glm_ocr": "<|user|>",
    }.get(family)
    ids = [tokens.eos_token_id]
    return ids + ([tokens.convert_tokens_to_ids(other)] if other else [])


__all__ = ["NAMES", "WORDS", "family_of", "write", "write_processor"]
