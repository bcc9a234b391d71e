"""LLaVA 1.5: CLIP (or SigLIP) features of an inner layer, an MLP for each of them."""

from dataclasses import replace
from typing import Any

import torch

from ....errors import LuvcError
from ...planning.flops import EncoderShape
from ...planning.grid import Grid
from ..absolute import AbsoluteAdapter
from ..adapter import GridState

TOWERS = ("clip_vision_model", "siglip_vision_model")


class Adapter(AbsoluteAdapter):
    """One image of the tower's size; features of one layer, or of several side by side."""

    @classmethod
    def check(cls, config: Any) -> None:
        """CLIP has a CLS token, which "default" drops; SigLIP has none."""
        strategy, tower = config.vision_feature_select_strategy, config.vision_config.model_type
        if tower not in TOWERS:
            raise LuvcError(f"vision tower {tower!r} is not supported: {', '.join(TOWERS)}")
        has_prefix = tower == "clip_vision_model"
        if strategy != ("default" if has_prefix else "full"):
            raise LuvcError(
                f"vision_feature_select_strategy {strategy!r} with {tower} is "
                "not supported: CLIP's CLS token cannot stand in the grid (use 'default'), and other "
                "towers have none (use 'full')"
            )

    @classmethod
    def features(cls, config: Any) -> tuple[int, ...]:
        """Layers whose output is used, in the order of the projector's input."""
        chosen, count = config.vision_feature_layer, config.vision_config.num_hidden_layers
        chosen = [chosen] if isinstance(chosen, int) else chosen
        layers = tuple((f if f >= 0 else count + 1 + f) - 1 for f in chosen)
        if min(layers) < 0 or max(layers) >= count:
            raise LuvcError(f"vision_feature_layer {chosen} is outside the tower's {count} layers")
        return layers

    @classmethod
    def shape(cls, config: Any) -> EncoderShape:
        """Widths for the cost model; layers behind the last one used do not run."""
        prefix = int(config.vision_config.model_type == "clip_vision_model")
        last = max(cls.features(config))
        return replace(super().shape(config), layers=last + 1, prefix=prefix)

    @classmethod
    def projector(cls, config: Any) -> tuple[int, ...]:
        """Two linear layers on all features of a token."""
        D, count = config.text_config.hidden_size, len(cls.features(config))
        return config.vision_config.hidden_size * count, D, D

    def __init__(self, model, layout):
        super().__init__(model, layout)
        self.chosen = self.features(model.config)
        self.prefix = self.shape(model.config).prefix  # type: ignore[misc]

    @property
    def taps(self) -> tuple[int, ...]:
        """All chosen layers but the last to run."""
        return tuple(sorted(set(self.chosen) - {max(self.chosen)}))

    def embed(self, pixels: torch.Tensor, state: GridState) -> torch.Tensor:
        """CLIP has a norm before its first layer."""
        x = self.vision.embeddings(pixels)
        return self.vision.pre_layrnorm(x) if hasattr(self.vision, "pre_layrnorm") else x

    def project(self, x: torch.Tensor, taps: list[torch.Tensor], grid: Grid) -> torch.Tensor:
        """The chosen layers' features side by side, then the MLP."""
        found = dict(zip((*self.taps, max(self.chosen)), (*taps, x), strict=True))
        features = torch.cat([found[i][:, self.prefix :] for i in self.chosen], -1)
        return self.model.model.multi_modal_projector(features)
