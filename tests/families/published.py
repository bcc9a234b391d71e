"""Directories shaped like published models: real widths, tiny tokenizers, no weights.

For planning only; published/README.md says where the numbers come from.
"""

import json
from pathlib import Path
from typing import Any

from .checkpoints import VIDEOS, dump
from .prompts import tokenizer
from .shapes import FAMILIES

ROOT = Path(__file__).parent / "published"
NAMES = tuple(sorted(f.parent.name for f in ROOT.glob("*/config.json")))


def config(name: str) -> dict[str, Any]:
    """The config.json of a published model."""
    return json.loads((ROOT / name / "config.json").read_text())


def write(name: str, folder: Path) -> Path:
    """Write config, processor and tokenizer files of a published model.

    The tokenizer is the family's tiny one; ids of special tokens in the config become its ids, and the
    vocabulary keeps its published size.

    Args:
        name: one of `NAMES`.
        folder: where to; made when missing.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    values = config(name)
    family = values["model_type"]
    tokens = tokenizer(family)
    tokens.save_pretrained(folder)
    small = FAMILIES[family](tokens, tokens.convert_tokens_to_ids)
    values |= {k: v for k, v in small.items() if "_token_i" in k}
    dump(folder / "config.json", values)
    for file in ("preprocessor_config.json", "processor_config.json"):
        (folder / file).write_text((ROOT / name / file).read_text())
    if family in VIDEOS:
        dump(folder / "video_preprocessor_config.json", VIDEOS[family])
    return folder
