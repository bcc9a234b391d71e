"""Gemma 4: patches with a table of positions and rotary ones in two axes, average pooling, one matrix."""

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from ....engines.bundle.layout import Layout
from ....errors import LuvcError
from ...planning.flops import EncoderShape
from ...planning.grid import Grid
from ..adapter import GridState, ImageGeometry
from ..processor import blank_run, named_token
from ..rope import RotaryAdapter

SQUARE = (480, 480)  # height, width in pixels: the processor makes its own square of it
BUDGETS = (
    70,
    140,
    280,
    560,
    1120,
)  # visual tokens of a picture that the processor can be asked for


class Adapter(RotaryAdapter):
    """One image; the processor fills its budget of visual tokens whatever the picture's size.

    An image size that fills another of its budgets is asked for by that budget.
    """

    modules: ClassVar[tuple[str, ...]] = ("model.vision_tower", "model.embed_vision")
    left_out: ClassVar[tuple[str, ...]] = ("model.audio_tower.", "model.embed_audio.")

    @classmethod
    def narrowed(cls, config: Any) -> Any:
        """Without the audio tower, which the small models have."""
        config.audio_config = None
        return config

    @classmethod
    def check(cls, config: Any) -> None:
        """Dense models only."""
        if config.text_config.enable_moe_block:
            raise LuvcError(
                f"mixture-of-experts models are not supported: this Gemma 4 has "
                f"{config.text_config.num_experts} experts in each layer; its dense siblings are"
            )

    @classmethod
    def traits(cls, config: Any) -> dict[str, Any]:
        """In the large models sliding layers look both ways inside an image."""
        ahead = config.text_config.use_bidirectional_attention == "vision"
        return {"mask": "near-image" if ahead else "causal"}

    @classmethod
    def multiple(cls, config: Any) -> Grid:
        """The kernel of the average pooling."""
        kernel = config.vision_config.pooling_kernel_size
        return Grid(kernel, kernel)

    @classmethod
    def shape(cls, config: Any) -> EncoderShape:
        """Widths for the cost model."""
        v, D = config.vision_config, config.text_config.hidden_size
        return EncoderShape(
            layers=v.num_hidden_layers,
            hidden=v.hidden_size,
            intermediate=v.intermediate_size,
            prefix=0,
            patch_values=3 * v.patch_size**2,
            shuffle=cls.multiple(config).tokens,
            projector=(v.hidden_size, D),
            gated=True,
        )

    @classmethod
    def geometry(
        cls, config: Any, processor: Any, size: tuple[int, int] | None, images: int, frames: int
    ) -> ImageGeometry:
        """The processor's own square, or an image of `size`, which it must leave as it is."""
        _check_blocks(config.vision_config, processor)
        usual = int(processor.max_soft_tokens)
        others = () if size is None else tuple(n for n in BUDGETS if n != usual)
        patch = config.vision_config.patch_size
        made: dict[int, Grid] = {}
        for budget in (usual, *others):
            grid = made[budget] = _grid_of(processor, size or SQUARE, budget)
            real = grid.h * patch, grid.w * patch
            if size in (None, real):
                shape = (1, grid.tokens, 3 * patch**2)
                options = {"max_soft_tokens": budget}
                return ImageGeometry(real, 1, shape, grid, options, True, images=images)
        assert size is not None
        real = f"{made[usual].h * patch}x{made[usual].w * patch}"
        raise LuvcError(
            f"the image processor brings {size[0]}x{size[1]} to {real}, which fills its {usual} visual "
            f"tokens, and for none of {', '.join(map(str, BUDGETS))} does it leave that as it is: use "
            f"--image-size {real}"
        )

    @classmethod
    def size_step(cls, config: Any, processor: Any) -> tuple[int, int]:
        """Blocks of the pooling."""
        step = config.vision_config.patch_size * config.vision_config.pooling_kernel_size
        return step, step

    @classmethod
    def image_token(cls, tokenizer: Any) -> str:
        """`<|image|>`."""
        return named_token(tokenizer, "image_token")

    @classmethod
    def expansion(
        cls, tokenizer: Any, processor: Any, geometry: ImageGeometry, tokens: int
    ) -> list[tuple[str, int]]:
        """Start, visual tokens, end (Gemma4Processor's replace_image_token)."""
        start, end = (named_token(tokenizer, name) for name in ("boi_token", "eoi_token"))
        return [(start, 1), (cls.image_token(tokenizer), tokens), (end, 1)]

    def __init__(self, model: nn.Module, layout: Layout):
        super().__init__(model, layout)
        self.vision = self.model.model.vision_tower

    @property
    def layers(self) -> nn.ModuleList:
        """The tower's layers."""
        return self.vision.encoder.layers

    @property
    def rotary(self) -> nn.Module:
        """Of all layers."""
        return self.vision.encoder.rotary_emb

    def start(self, grid: Grid) -> GridState:
        """Each patch at its row and column, and the sum of its two tables of positions."""
        state = super().start(grid)
        assert state.positions is not None
        places = state.positions.flip(-1).long()
        inside = torch.zeros(places.shape[:2], dtype=torch.bool)
        table = self.vision.patch_embedder._position_embeddings(places, inside)
        state.tables["absolute"] = table.detach().float()
        return state

    def tabulate(self, state: GridState) -> GridState:
        """cos and sin [1 or N, h * w, d] of columns and rows, and these [1 or N, h * w, 2]."""
        assert state.positions is not None
        places = state.positions.flip(-1)
        cos, sin = self.rotary(places, places)
        state.tables |= {"cos": cos, "sin": sin, "places": places}
        return state

    def embed(self, pixels: torch.Tensor, state: GridState) -> torch.Tensor:
        """Patches and their positions."""
        x = self.vision.patch_embedder.input_proj(2 * (pixels - 0.5))
        return x + state.tables["absolute"].to(x.dtype)

    def block(self, layer: int, x: torch.Tensor, state: GridState) -> torch.Tensor:
        """One layer; each entry sees itself."""
        cos, sin = (state.tables[name].to(x.dtype) for name in ("cos", "sin"))
        return self.layers[layer](
            x,
            position_embeddings=(cos, sin),
            attention_mask=None,
            position_ids=state.tables["places"],
        )

    def project(self, x: torch.Tensor, taps: list[torch.Tensor], grid: Grid) -> torch.Tensor:
        """Average pooling on the rectangle, scale, norm, one matrix; in float32 up to the matrix."""
        tower, embed = self.vision, self.model.model.embed_vision
        cells = x.float().transpose(1, 2).unflatten(2, (grid.h, grid.w))
        y = F.avg_pool2d(cells, self.multiple_of.h).flatten(2).transpose(1, 2)
        y = y * math.sqrt(tower.config.hidden_size)
        if tower.config.standardize:
            y = (y - tower.std_bias.float()) * tower.std_scale.float()
        normed = embed.embedding_pre_projection_norm(y)
        return embed.embedding_projection(normed.to(x.dtype))


def _check_blocks(vision: Any, processor: Any) -> None:
    """Refuse a processor that makes other patches than the tower's."""
    made = int(processor.patch_size), int(processor.pooling_kernel_size)
    if made != (vision.patch_size, vision.pooling_kernel_size):
        raise LuvcError(
            f"the image processor makes blocks of {made[1]}x{made[1]} patches of {made[0]}x{made[0]} pixels, "
            f"the vision tower takes {vision.pooling_kernel_size}x{vision.pooling_kernel_size} of "
            f"{vision.patch_size}x{vision.patch_size}: mend preprocessor_config.json"
        )


def _grid_of(processor: Any, size: tuple[int, int], budget: int) -> Grid:
    """Patches of an image of `size` = (height, width) for a budget of visual tokens."""
    found = blank_run(processor, size, {"max_soft_tokens": budget})
    columns, rows = found["image_position_ids"][0].max(0)
    return Grid(int(rows) + 1, int(columns) + 1)
