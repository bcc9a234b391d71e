"""Mistral Small 3.1 and later, Ministral 3: Pixtral's tower, a merger of patches, row ends in the prompt."""

from typing import Any, ClassVar

import torch
from torch import nn

from ....engines.bundle.layout import Layout
from ....errors import LuvcError
from ...planning.flops import EncoderShape
from ...planning.grid import Grid
from ..adapter import GridState, ImageGeometry
from ..processor import blank_run, known_token
from ..rope import USUAL, RotaryAdapter


class Adapter(RotaryAdapter):
    """One image of any size; its patches are in raster order in the checkpoint too."""

    tower: ClassVar[str] = "model.vision_tower"
    projector: ClassVar[str] = "model.multi_modal_projector"
    modules: ClassVar[tuple[str, ...]] = ("model.vision_tower", "model.multi_modal_projector")
    visual_token: ClassVar[str] = "[IMG]"
    ends: ClassVar[tuple[str, ...]] = ("[IMG_BREAK]", "[IMG_END]")  # of a row, of the image

    @classmethod
    def check(cls, config: Any) -> None:
        """Only Pixtral's tower, and the features of its last layer."""
        tower, layer = config.vision_config.model_type, getattr(config, "vision_feature_layer", -1)
        if tower != "pixtral":
            raise LuvcError(f"vision tower {tower!r} is not supported: only 'pixtral' is")
        if layer != -1:
            raise LuvcError(f"vision features of layer {layer} are not supported: only layer -1 is")

    @classmethod
    def multiple(cls, config: Any) -> Grid:
        """Blocks of the merger."""
        return Grid(config.spatial_merge_size, config.spatial_merge_size)

    @classmethod
    def shape(cls, config: Any) -> EncoderShape:
        """Widths for the cost model: the merger brings a block to the width of a patch."""
        v, D = config.vision_config, config.text_config.hidden_size
        block = cls.multiple(config)
        return EncoderShape(
            layers=v.num_hidden_layers,
            hidden=v.hidden_size,
            intermediate=v.intermediate_size,
            prefix=0,
            patch_values=v.num_channels * v.patch_size**2,
            shuffle=block.tokens,
            projector=(v.hidden_size * block.tokens, v.hidden_size, D, D),
            gated=True,
        )

    @classmethod
    def geometry(
        cls, config: Any, processor: Any, size: tuple[int, int] | None, images: int, frames: int
    ) -> ImageGeometry:
        """An image of `size`, which the processor must leave as it is.

        The whole processor has sizes rounded to blocks, whatever the image processor's own file says.
        """
        step, patch = cls.size_step(config, processor)[0], config.vision_config.patch_size
        options = {"patch_size": {"height": step, "width": step}}
        h, w = (int(n) for n in blank_run(processor, size or USUAL, options)["image_sizes"][0])
        if size not in (None, (h, w)):
            raise LuvcError(
                f"the image processor brings {size[0]}x{size[1]} to {h}x{w} (multiples of {step} within "
                f"its longest edge): use --image-size {h}x{w}"
            )
        shape, grid = (1, 3, h, w), Grid(h // patch, w // patch)
        return ImageGeometry((h, w), 1, shape, grid, options, True, images=images, frames=frames)

    @classmethod
    def size_step(cls, config: Any, processor: Any) -> tuple[int, int]:
        """Blocks of the merger."""
        step = config.vision_config.patch_size * config.spatial_merge_size
        return step, step

    @classmethod
    def expansion(
        cls, tokenizer: Any, processor: Any, geometry: ImageGeometry, tokens: int
    ) -> list[tuple[str, int]]:
        """A break behind each row, and the image's end behind the last (PixtralProcessor)."""
        if not cls.ends:
            return super().expansion(tokenizer, processor, geometry, tokens)
        (row, image), grid = (known_token(tokenizer, end) for end in cls.ends), geometry.grid
        ends = [*[row] * (grid.h - 1), image]
        return [pair for end in ends for pair in ((cls.image_token(tokenizer), grid.w), (end, 1))]

    def __init__(self, model: nn.Module, layout: Layout):
        super().__init__(model, layout)
        self.vision = model.get_submodule(self.tower)
        self.merger: Any = model.get_submodule(self.projector)

    @property
    def layers(self) -> nn.ModuleList:
        """The tower's layers."""
        return self.vision.transformer.layers

    @property
    def rotary(self) -> nn.Module:
        """Of all layers."""
        return self.vision.patch_positional_embedding

    def embed(self, pixels: torch.Tensor, state: GridState) -> torch.Tensor:
        """Patches and a norm."""
        return self.vision.ln_pre(self.vision.patch_conv(pixels).flatten(2).transpose(1, 2))

    def block(self, layer: int, x: torch.Tensor, state: GridState) -> torch.Tensor:
        """One layer; each entry sees itself."""
        b: Any = self.layers[layer]
        attended = self.self_attention(b.attention, b.attention_norm(x), layer, state)
        x = x + b.attention.o_proj(attended)
        return x + b.feed_forward(b.ffn_norm(x))

    def project(self, x: torch.Tensor, taps: list[torch.Tensor], grid: Grid) -> torch.Tensor:
        """Norm, merger of blocks channel by channel (torch's unfold), MLP."""
        m, k = self.merger, self.multiple_of.h
        x = m.norm(x).unflatten(1, (grid.h // k, k, grid.w // k, k))
        x = m.patch_merger.merging_layer(x.permute(0, 1, 3, 5, 2, 4).flatten(3).flatten(1, 2))
        return m.linear_2(m.act(m.linear_1(x)))
