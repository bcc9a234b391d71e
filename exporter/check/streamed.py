"""A model larger than memory: its large weights stay mapped files, and each is widened while it is used."""

from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from .memory import free_memory

SHARE = 0.7
"""Of the free memory that a model may take."""
MARK = "streamed_by_luvc"
GIB = 1 << 30


class Widened(nn.Module):
    """A weight as float32, made whenever it is asked for."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Of any shape and floating type."""
        return weight.float()


def stream(model: nn.Module) -> nn.Module:
    """Compute in float32 with weights that stay as they were loaded, in place.

    Matrices of linear layers and embeddings stay in the checkpoint's dtype, in its files where they are
    mapped; everything else, which is small, becomes float32. Results are those of a model in float32, bit
    for bit: widening is exact.
    """
    large = {
        id(module.weight) for module in model.modules() if type(module) in (nn.Linear, nn.Embedding)
    }
    for parameter in model.parameters():
        if id(parameter) not in large or _shared_with_others(model, parameter):
            parameter.data = parameter.data.float()
    for module in list(model.modules()):
        if type(module) is nn.Linear and module.weight.dtype != torch.float32:
            parametrize.register_parametrization(module, "weight", Widened(), unsafe=True)
        elif type(module) is nn.Embedding and module.weight.dtype != torch.float32:
            module.register_forward_hook(lambda module, given, found: found.float())
    setattr(model, MARK, True)
    return model


def _shared_with_others(model: nn.Module, parameter: nn.Parameter) -> bool:
    """Whether a module of another kind holds it, too, and would meet it as it was loaded."""
    return any(
        held is parameter
        for module in model.modules()
        if type(module) not in (nn.Linear, nn.Embedding)
        for held in module.parameters(recurse=False)
    )


def is_streamed(model: Any) -> bool:
    """Whether `stream` prepared it."""
    return getattr(model, MARK, False)


def why_streamed(model: nn.Module) -> str | None:
    """What to say where memory does not hold a model in float32; None where it does."""
    narrow = [p.numel() for p in model.parameters() if p.dtype != torch.float32]
    wanted, free = 4 * sum(narrow), free_memory()
    if wanted <= SHARE * free:
        return None
    return (
        f"the model takes {wanted / GIB:.1f} GiB in float32, {free / GIB:.1f} GiB are free: its weights stay "
        "in their files and are widened as they are used, which is slower"
    )
