"""What a checkpoint is: its config read once, checked, and put into the words of the solver."""

import copy
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ...engines.bundle.folder import GRAPHS
from ...engines.bundle.manifest import Graphs, LanguageModel, Layout, Ratios
from ...engines.bundle.schedule import Schedule, stages_of
from ...engines.pictures import ImageProcessor
from ...errors import LuvcError, brief
from ..language.traits import TextTraits, decoder_shape, text_traits
from ..planning import cost
from ..planning.grid import Grid
from ..planning.problem import Problem
from ..vision.adapter import ImageGeometry, VisionAdapter
from ..vision.families import adapter_class
from .config import read_config
from .hub import locate, named


@dataclass(frozen=True)
class Family:
    """A checkpoint's architecture, from its config and processor files; no weights are read.

    Attributes:
        source: the directory or hub id as it was given.
        config: Hugging Face config.
        adapter: the vision adapter class of its model_type.
        folder: where its files lie: the directory, or the hub's snapshot, which may lack the weights.
        commit: of a hub id; None for a directory.
    """

    source: str
    config: Any
    adapter: type[VisionAdapter]
    folder: Path
    commit: str | None = None

    @classmethod
    def load(cls, source: str) -> "Family":
        """Read and check the config of a directory, a hub id or ID@REVISION.

        Raises:
            LuvcError: not found, not a supported vision-language model, quantised, or needs remote code.
        """
        folder, commit = locate(source)
        config = read_config(source, folder)
        family = cls(source, config, adapter_class(config.model_type), folder, commit)
        family.adapter.check(config)
        _ = family.traits
        return family

    @property
    def model(self) -> str:
        """The hub id without its revision, or the directory from the root."""
        return str(self.folder.resolve()) if self.commit is None else named(self.source)[0]

    @cached_property
    def traits(self) -> TextTraits:
        """What the decoder loop must know of the text model.

        Raises:
            LuvcError: it cannot be reproduced; says why.
        """
        return text_traits(self.config.text_config, **self.adapter.traits(self.config))

    def truncated(self, depth: int) -> "Family":
        """The same family with only the first `depth` language layers."""
        config = copy.deepcopy(self.config)
        text = config.text_config
        text.num_hidden_layers = depth
        for name in ("layer_types", "no_rope_layers"):
            if getattr(text, name, None):
                setattr(text, name, getattr(text, name)[:depth])
        return replace(self, config=config)

    @property
    def decoder(self) -> cost.DecoderShape:
        """Language model widths."""
        return decoder_shape(self.config.text_config, self.traits)

    @cached_property
    def language(self) -> LanguageModel:
        """What the bundle's manifest says of the language model."""
        d, t = self.decoder, self.traits
        token = self.adapter.image_token(self.tokenizer)
        return LanguageModel(
            model_type=self.config.text_config.model_type,
            layers=d.layers,
            kv_heads=d.kv_heads,
            head_dim=d.head_dim,
            vocab_size=d.vocab,
            image_token=token,
            image_token_id=self.tokenizer.convert_tokens_to_ids(token),
            max_positions=self.config.text_config.max_position_embeddings,
            hidden=d.hidden,
            layer_types=t.layer_types,
            window=t.window,
            conv_state=t.conv_state,
            position_axes=t.position_axes,
            first_position=t.first_position,
            time_scale=t.time_scale,
            whole_prompt=t.mask == "prompt",
        )

    @property
    def encoder(self) -> cost.EncoderShape:
        """Vision tower widths."""
        return self.adapter.shape(self.config)

    @property
    def multiple(self) -> Grid:
        """Lengths the merged grid must be multiples of."""
        return self.adapter.multiple(self.config)

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer."""
        from transformers import AutoTokenizer

        tokenizer = self._read(AutoTokenizer, "tokenizer files")
        found = self._processor_template() or tokenizer.chat_template or self.adapter.template
        if not found:
            raise LuvcError(f"{self.source} has no chat template; add a chat_template.jinja file")
        tokenizer.chat_template = found
        return tokenizer

    @cached_property
    def image_processor(self) -> Any:
        """The checkpoint's image processor, in its Pillow form where the family has one."""
        return self._read(ImageProcessor, "preprocessor_config.json")

    def geometry(
        self, size: tuple[int, int] | None = None, images: int = 1, frames: int = 0
    ) -> ImageGeometry:
        """What one of `images` images (or videos) of `size` = (height, width) becomes.

        Raises:
            LuvcError: the family's processor cannot give this; says what it can.
        """
        if frames and not self.adapter.video:
            kind = self.config.model_type
            raise LuvcError(f"{kind} takes images only; --frames is for the Qwen-VL families")
        try:
            found = self.adapter.geometry(self.config, self.image_processor, size, images, frames)
        except ValueError as e:
            if isinstance(e, LuvcError):
                raise
            raise LuvcError(  # processors refuse extreme shapes in their own words
                f"the image processor of {self.config.model_type} refuses {size}: {brief(e)}"
            ) from e
        grid, block = found.grid, self.multiple
        if grid.h % block.h or grid.w % block.w:
            raise LuvcError(
                f"a grid of {grid.h}x{grid.w} vision tokens does not divide into the projector's blocks of "
                f"{block.h}x{block.w}: mend the image size in config.json and preprocessor_config.json"
            )
        return found

    def problem(self, geometry: ImageGeometry, text: int) -> Problem:
        """The layout as the schedule solver sees it."""
        return Problem(
            decoder=self.decoder,
            encoder=self.encoder,
            grid=geometry.grid,
            multiple=self.multiple,
            tiles=geometry.tiles * geometry.images,
            images=geometry.images,
            text=text,
            count=lambda merges: self.adapter.tokens(self.config, geometry, merges),
        )

    def layout(self, geometry: ImageGeometry, text: int, schedule: Schedule) -> Layout:
        """The manifest entry of an image geometry under a schedule."""
        problem, tokenizer = self.problem(geometry, text), self.tokenizer
        merged = problem.grids(schedule.vision)[-1]
        V = problem.visual_tokens(schedule.vision)
        per_image = V // geometry.images
        h, w = geometry.size
        name = f"{h}x{w}" + (f"-{geometry.images}images" if geometry.images > 1 else "")
        name += f"-{geometry.frames}frames" if geometry.frames else ""
        expansion = self.adapter.expansion(tokenizer, self.image_processor, geometry, per_image)
        return Layout(
            name=name,
            image_size=geometry.size,
            images=geometry.images,
            frames=geometry.frames,
            tiles=geometry.tiles,
            pixel_shape=geometry.pixel_shape,
            grid=(geometry.grid.h, geometry.grid.w),
            merged_grid=(merged.h, merged.w),
            visual_grid=self.adapter.visual_grid(self.config, geometry, merged),
            tokens_per_image=per_image,
            visual_tokens=V,
            baseline_visual_tokens=problem.visual_tokens(()),
            placeholder=self.adapter.placeholder(tokenizer, geometry.frames),
            expansion=tuple(expansion),
            resize=geometry.resize,
            processor_options=geometry.options,
            schedule=schedule,
            stages=stages_of(schedule.visual_per_layer(self.decoder.layers, V)),
            ratios=problem.ratios(schedule),
            graphs=_graphs(name),
        )

    def text_layout(self) -> Layout:
        """The manifest entry of questions without a picture: nothing to see, nothing to compress.

        Raises:
            LuvcError: the family takes no such question.
        """
        if self.adapter.needs_image:
            kind = self.config.model_type
            raise LuvcError(f"{kind} takes no question without a picture: leave --images 0 out")
        return Layout(
            name="text", image_size=(0, 0), images=0, tiles=0, pixel_shape=(), grid=(0, 0),
            merged_grid=(0, 0), tokens_per_image=0, visual_tokens=0, baseline_visual_tokens=0,
            placeholder=self.adapter.placeholder(self.tokenizer, 0), expansion=(),
            processor_options={}, schedule=Schedule(), stages=stages_of((0,) * self.decoder.layers),
            ratios=Ratios(vision=1, prefill=1, both=1),
            graphs=_graphs("text").model_copy(update={"vision": ""}),
        )  # fmt: skip

    def geometry_of(self, layout: Layout) -> ImageGeometry:
        """What the images of a layout become."""
        return self.geometry(layout.image_size, layout.images, layout.frames)

    def _processor_template(self) -> str | None:
        """The template of the processor's own files, which goes before the tokenizer's.

        Checkpoints made of a text model may keep that model's template beside their own.
        """
        for name in ("processor_config.json", "chat_template.json"):
            file = self.folder / name
            try:
                found = json.loads(file.read_text()) if file.is_file() else {}
                if found.get("chat_template"):
                    return found["chat_template"]
            except (OSError, ValueError, AttributeError) as e:
                raise LuvcError(f"{self.source}: {name} cannot be read: {brief(e)}") from e
        return None

    def _read(self, auto: Any, what: str) -> Any:
        try:
            return auto.from_pretrained(str(self.folder), trust_remote_code=False)
        except (LuvcError, MemoryError):
            raise
        except Exception as e:  # readers raise what they like, the tokenizer's a plain Exception
            raise LuvcError(f"{self.source}: {what} cannot be read: {brief(e)}") from e


def _graphs(layout: str) -> Graphs:
    """Paths of a layout's graphs in the bundle."""
    return Graphs(**{kind: f"{GRAPHS}/{kind}-{layout}.onnx" for kind in Graphs.model_fields})
