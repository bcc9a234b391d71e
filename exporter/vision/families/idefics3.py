"""Idefics3: SigLIP with bucketed positions, space-to-depth, one linear layer; tiles."""

from types import SimpleNamespace
from typing import Any, ClassVar

import torch

from ...planning.grid import Grid
from ..absolute import AbsoluteAdapter, space_to_depth
from ..adapter import GridState, ImageGeometry
from ..processor import count_tiles, known_token, pieces


class Adapter(AbsoluteAdapter):
    """Tiles in rows and columns with markers between them, and the whole picture last."""

    tower: ClassVar[str] = "model.vision_model"
    modules: ClassVar[tuple[str, ...]] = ("model.vision_model", "model.connector")
    whole: ClassVar[str] = "global_image_tag"  # the processor's name of the token before the whole

    @classmethod
    def traits(cls, config: Any) -> dict[str, Any]:
        """The text model's place."""
        return {"path": "model.text_model"}

    @classmethod
    def multiple(cls, config: Any) -> Grid:
        """Space-to-depth blocks."""
        return Grid(config.scale_factor, config.scale_factor)

    @classmethod
    def projector(cls, config: Any) -> tuple[int, ...]:
        """One linear layer on the blocks."""
        width = config.vision_config.hidden_size * config.scale_factor**2
        return width, config.text_config.hidden_size

    @classmethod
    def geometry(
        cls, config: Any, processor: Any, size: tuple[int, int] | None, images: int, frames: int
    ) -> ImageGeometry:
        """One tile without splitting; otherwise rows and columns of tiles and the whole picture."""
        edge = int(processor.max_image_size["longest_edge"])
        patch = config.vision_config.patch_size
        grid = Grid(edge // patch, edge // patch)
        size, most = size or (edge, edge), (int(processor.size["longest_edge"]) // edge) ** 2
        rows, columns = count_tiles(size, (edge, edge), most)
        if rows * columns == 1:
            options: dict[str, Any] = {"do_image_splitting": False}
            return ImageGeometry(
                size, 1, (1, 3, edge, edge), grid, options, images=images, frames=frames
            )
        options = {"do_image_splitting": True, "size": {"longest_edge": max(size)}}
        tiles = rows * columns + 1
        shape = (tiles, 3, edge, edge)
        return ImageGeometry(size, tiles, shape, grid, options, True, rows, columns, images, frames)

    @classmethod
    def size_step(cls, config: Any, processor: Any) -> tuple[int, int]:
        """Whole tiles."""
        edge = int(processor.max_image_size["longest_edge"])
        return edge, edge

    @classmethod
    def expansion(
        cls, tokenizer: Any, processor: Any, geometry: ImageGeometry, tokens: int
    ) -> list[tuple[str, int]]:
        """From the processor's own method, with the shrunk count per tile."""
        import transformers

        token = cls.image_token(tokenizer)
        fake = known_token(tokenizer, "<fake_token_around_image>")
        # Idefics3-8B and the first SmolVLM know no such token: it was plain text in their training.
        whole = getattr(tokenizer, "global_image_token", None) or "<global-img>"
        fields = SimpleNamespace(
            image_token=token,
            fake_image_token=fake,
            image_seq_len=tokens // geometry.tiles,
            **{cls.whole: whole},
        )
        inputs = {"rows": [[geometry.rows]], "cols": [[geometry.columns]]}
        method = getattr(transformers, cls.processor()).replace_image_token
        return pieces(method(fields, inputs, 0), token)

    @classmethod
    def processor(cls) -> str:
        """Name of the family's processor class."""
        return "Idefics3Processor"

    def start(self, grid: Grid) -> GridState:
        """Positions go through buckets of a fixed table; computed once, not in the graph."""
        side = self.vision.embeddings.num_patches_per_side
        places = []
        for length in (grid.h, grid.w):
            at = torch.arange(length) * (1.0 / torch.tensor(length))
            edges = torch.arange(1 / side, 1.0, 1 / side)
            places.append(torch.bucketize(at.clamp(max=1.0 - 1e-6), edges, right=True))
        rows = (places[0][:, None] * side + places[1]).flatten()
        return GridState(grid, tables={"rows": rows})

    def embed(self, pixels: torch.Tensor, state: GridState) -> torch.Tensor:
        """Patches and their rows of the position table."""
        e = self.vision.embeddings
        x = e.patch_embedding(pixels).flatten(2).transpose(1, 2)
        return x + e.position_embedding(state.tables["rows"])

    def project(self, x: torch.Tensor, taps: list[torch.Tensor], grid: Grid) -> torch.Tensor:
        """Norm, blocks, one linear layer."""
        c = self.model.model.connector
        x = space_to_depth(self.vision.post_layernorm(x), grid, c.scale_factor)
        return c.modality_projection(x)
