"""Published models with random weights on the device, their layouts, and prompts for them.

Letters: B batch, S prompt length, V visual tokens, P position axes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from luvc.engines.bundle.layout import Layout
from luvc.engines.prompt.positions import prompt_positions
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.layouts.planned import image_geometry, layout_of, problem_of
from luvc.exporter.planning.defaults import DEFAULTS, SolverOptions
from luvc.exporter.planning.solver import solve

TEXT = 64  # text tokens of a prompt
HEAD = 4  # of them before the picture
SIZES = {  # (height, width) of the picture by visual tokens at ratio 1
    "InternVL2_5-8B": {1024: (448, 1344), 3328: (1344, 1792)},
    "Qwen2.5-VL-7B-Instruct": {1024: (896, 896), 3328: (1456, 1792)},
}


def published_family(name: str, folder: Path) -> Family:
    """The family of a published model's config; a tiny tokenizer stands in for its own."""
    from tests.families import published

    return Family.load(str(published.write(name, folder)))


def random_model(family: Family, device: torch.device, dtype: torch.dtype) -> Any:
    """The Hugging Face model with the library's random weights, made on the device."""
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    with torch.device(device):
        model: Any = AutoModelForImageTextToText.from_config(
            family.config, dtype=dtype, attn_implementation="sdpa"
        )
    return model.eval()


def layouts(
    family: Family,
    size: tuple[int, int] | None,
    ratios: list[float],
    options: SolverOptions = DEFAULTS,
) -> dict[str, Layout]:
    """The layout of one picture at each ratio, by the ratio as text.

    Args:
        family: of the model.
        size: (height, width) of the picture; None is the family's usual one.
        ratios: of prefill FLOPs.
        options: of the solver.
    """
    geometry = image_geometry(family, size)
    problem = problem_of(family, geometry, TEXT)
    schedules = {f"{r:g}": solve(problem, r, options) for r in ratios}
    return {
        name: layout_of(family, geometry, problem, schedule) for name, schedule in schedules.items()
    }


@dataclass(frozen=True)
class Prompts:
    """B prompts of equal length about one picture each, int64 on the device.

    Attributes:
        input_ids: [B, S].
        visual_index: [B, V].
        position_ids: [B, S], or [B, S, P].
        last_index: [B].
        next_position: of the first token after the prompt, [B, 1] or [B, 1, P].
    """

    input_ids: torch.Tensor
    visual_index: torch.Tensor
    position_ids: torch.Tensor
    last_index: torch.Tensor
    next_position: torch.Tensor

    @classmethod
    def make(
        cls, family: Family, layout: Layout, batch: int, device: torch.device, seed: int
    ) -> "Prompts":
        """Random text around the picture."""
        V, S = layout.visual_tokens, layout.visual_tokens + TEXT
        words = np.random.default_rng(seed).choice(plain_tokens(family), (batch, S))
        words[:, HEAD : HEAD + V] = family.language.image_token_id
        positions, after = prompt_positions(words[0].tolist(), family.language, layout)
        following = np.full((batch, 1, *positions.shape[1:]), after)
        arrays = {
            "input_ids": words,
            "visual_index": np.tile(np.arange(HEAD, HEAD + V), (batch, 1)),
            "position_ids": np.tile(positions, (batch, *[1] * positions.ndim)),
            "last_index": np.full(batch, S - 1),
            "next_position": following,
        }
        return cls(
            **{k: torch.from_numpy(v.astype(np.int64)).to(device) for k, v in arrays.items()}
        )


def plain_tokens(family: Family) -> np.ndarray:
    """Token ids without a special meaning."""
    special = {family.language.image_token_id}
    for config in (family.config, family.config.text_config):
        found = (v for k, v in config.to_dict().items() if k.endswith("_token_id"))
        special |= {v for v in found if isinstance(v, int)}
    return np.setdiff1d(np.arange(family.language.vocab_size), sorted(special))


def pixels(layout: Layout, batch: int, device: torch.device, seed: int) -> torch.Tensor:
    """Random pixel values of B pictures, float32 [B * tiles, ...]."""
    generator = torch.Generator(device).manual_seed(seed)
    shape = batch * layout.pixel_shape[0], *layout.pixel_shape[1:]
    return torch.randn(shape, generator=generator, device=device)
