"""First weights of the pocket VLM.

Hugging Face starts every matrix at a deviation of 0.02, which suits widths near 2,000, and
position embeddings at zero, which leaves the patches without places. At widths of 200 both cost
thousands of steps.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import InternVLForConditionalGeneration

from .checkpoint import LAYERS

_RESIDUAL = ("projection_layer", "fc2", "o_proj", "down_proj")
"""Matrices whose output is added to the residual stream."""
_LAYER = re.compile(r"(.*\.layers?\.)(\d+)(\..*)")
_PERIOD = 100
"""Longest wave of the position embeddings, in patches, is 2 pi times this."""


@torch.no_grad()
def initialise(model: InternVLForConditionalGeneration) -> None:
    """Draw matrices that keep the variance, and position embeddings that are waves in 2D."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and module is not model.lm_head:
            deviation = module.weight[0].numel() ** -0.5
            if name.endswith(_RESIDUAL):
                deviation *= (2 * LAYERS) ** -0.5
            nn.init.normal_(module.weight, std=deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    words = model.lm_head.weight  # tied to the embedding
    nn.init.normal_(words, std=words.shape[1] ** -0.5)
    embeddings = model.model.vision_tower.embeddings
    places = embeddings.position_embeddings
    side = int((places.shape[1] - 1) ** 0.5)
    places[0, 0].zero_()
    places[0, 1:] = waves(side, places.shape[2])
    nn.init.normal_(embeddings.cls_token)


@torch.no_grad()
def grown(model: InternVLForConditionalGeneration) -> InternVLForConditionalGeneration:
    """The model with LAYERS layers in both stacks, which computes the same.

    Behind every layer stand copies of it that add nothing yet: their last matrices are zero. Training
    few layers first and then all of them needs half the work for the same start.
    Source: L. Gong et al., "Efficient Training of BERT by Progressively Stacking" (2019), with the copies
    beside their layers and silent at first.
    """
    config = model.config.to_dict()
    copies = LAYERS // config["text_config"]["num_hidden_layers"]
    if copies == 1:
        return model
    config["text_config"]["num_hidden_layers"] = LAYERS
    config["vision_config"]["num_hidden_layers"] = LAYERS
    del config["text_config"]["layer_types"]  # an entry a layer: made anew
    state = {}
    for name, value in model.state_dict().items():
        layer = _LAYER.fullmatch(name)
        if not layer:
            state[name] = value
            continue
        before, number, inside = layer.groups()
        for extra in range(copies):
            silent = extra > 0 and inside.split(".")[-2] in _RESIDUAL
            place = f"{before}{copies * int(number) + extra}{inside}"
            state[place] = torch.zeros_like(value) if silent else value
    larger = type(model)(type(model.config).from_dict(config))
    larger.load_state_dict(state)
    return larger


@torch.no_grad()
def finer(
    model: InternVLForConditionalGeneration, scale: int = 2
) -> InternVLForConditionalGeneration:
    """The model for pictures `scale` times as large, whose patches pixel shuffle joins: pocket-hd's start.

    The language model and the layers are the model's, the places of patches lie between its own, and the
    projector begins with the mean of the patches that are joined.
    """
    config = model.config.to_dict()
    vision = config["vision_config"]
    vision["image_size"] = [edge * scale for edge in vision["image_size"]]
    config["downsample_ratio"] /= scale
    for part in (vision, config["text_config"]):
        part.pop("dtype", None)  # that of the loaded weights, not of those that are saved
    state = model.state_dict()
    for name, value in state.items():
        if name.endswith("position_embeddings"):
            side = int((value.shape[1] - 1) ** 0.5)
            places = value[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
            places = F.interpolate(places, scale_factor=scale, mode="bicubic").flatten(2).mT
            state[name] = torch.cat([value[:, :1], places], 1)
        elif "projector.layer_norm" in name:
            state[name] = value.repeat(scale**2)
        elif name.endswith("projector.linear_1.weight"):
            state[name] = value.repeat(1, scale**2) / scale**2
    larger = type(model)(type(model.config).from_dict(config))
    larger.load_state_dict(state)
    return larger


def waves(side: int, width: int) -> Tensor:
    """Sines and cosines of each patch's row and column.

    Args:
        side: rows and columns of the patch grid.
        width: channels, a multiple of 4.

    Returns:
        [side * side, width], in raster order.
    """
    rates = _PERIOD ** (-torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * rates
    line = torch.cat([angles.sin(), angles.cos()], 1)
    rows = line[:, None].expand(side, side, -1)
    columns = line[None].expand(side, side, -1)
    return torch.cat([rows, columns], 2).flatten(0, 1)
