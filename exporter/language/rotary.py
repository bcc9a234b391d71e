"""Rotary positions: cos and sin of position ids in one axis or three.

The ids are made at run time (engines/prompt/positions.py) and kept through every prune. Hugging Face's own
forward is not traced, because it may recompute frequencies from the longest position; here they are
constants (see ROTARY in traits.py). Letters: B batch, S sequence, P position axes, d head size.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ...engines.bundle.manifest import LayerType
from ...engines.bundle.tensors import STATEFUL
from ...errors import LuvcError
from .traits import LAYERS

Rotations = dict[LayerType, tuple[torch.Tensor, torch.Tensor]]
PROBE = ((0, 0, 0), (1, 2, 3), (7, 5, 11))  # positions at which the two must agree


class Rotary(nn.Module):
    """cos and sin [B, S, d] of positions [B, S, P], for each type of layer.

    Args:
        rotary: Hugging Face's rotary module of the text model.
        parameters: the text config's rope_parameters.
        types: of the model's layers.
        axes: P.

    Raises:
        LuvcError: the module computes something else.
    """

    def __init__(self, rotary: Any, parameters: dict, types: Iterable[LayerType], axes: int):
        super().__init__()
        names = {short: name for name, short in LAYERS.items()}
        self.forms: dict[LayerType, tuple[torch.Tensor, torch.Tensor, float, bool]] = {}
        for kind in sorted(set(types) - set(STATEFUL)):
            own = names[kind] if hasattr(rotary, f"{names[kind]}_inv_freq") else None
            prefix = f"{own}_" if own else ""
            frequency = getattr(rotary, f"{prefix}inv_freq").detach().float()
            scale = float(getattr(rotary, f"{prefix}attention_scaling", 1.0))
            axis = _axis_of(frequency.shape[0], parameters, axes)
            probe = torch.tensor(PROBE)[None, :, :axes]
            rest = (own,) if own else ()
            wanted = rotary(
                torch.zeros(1), probe[..., 0] if axes == 1 else probe.movedim(-1, 0), *rest
            )
            for interleaved in (False, True):
                form = frequency, axis, scale, interleaved
                if torch.allclose(_rotation(probe, *form)[1], wanted[1], atol=1e-5):
                    self.forms[kind] = form
            if kind not in self.forms:
                raise LuvcError(
                    f"the rotary positions of {type(rotary).__name__} are not supported; the families "
                    "that are: docs/families.md"
                )

    def forward(self, positions: torch.Tensor, dtype: torch.dtype) -> Rotations:
        """cos and sin of [B, S, P] positions for each type of layer."""
        rotations: Rotations = {}
        for kind, form in self.forms.items():
            cos, sin = _rotation(positions, *form)
            rotations[kind] = cos.to(dtype), sin.to(dtype)
        return rotations


def _axis_of(frequencies: int, parameters: dict, axes: int) -> torch.Tensor:
    """The axis that rotates each frequency: sections one after the other, or interleaved (Qwen3-VL)."""
    if axes == 1:
        return torch.zeros(frequencies, dtype=torch.long)
    sections = parameters["mrope_section"]
    if not parameters.get("mrope_interleaved", False):
        order = [i % 3 for i, n in enumerate(sections) for _ in range(n)]
        return torch.tensor(order[:frequencies])
    axis = torch.zeros(frequencies, dtype=torch.long)
    for i in (1, 2):
        axis[i : 3 * sections[i] : 3] = i
    return axis


def _rotation(positions, frequency, axis, scale: float, interleaved: bool):
    angle = positions.index_select(-1, axis).float() * frequency
    angle = angle.repeat_interleave(2, -1) if interleaved else torch.cat([angle, angle], -1)
    return angle.cos() * scale, angle.sin() * scale
