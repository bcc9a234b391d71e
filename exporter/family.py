"""What a checkpoint is: its config read once, checked, and put into the words of the solver."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..engines.bundle import GRAPHS
from ..engines.manifest import Layout, Schedule, stages_of
from ..errors import LuvcError
from . import cost, language
from .grid import Grid, merged_grids
from .problem import Problem
from .vision import ADAPTERS, adapter_class
from .vision.core import TileGeometry, VisionAdapter


@dataclass(frozen=True)
class Family:
    """A checkpoint's architecture, from its config and processor files; no weights are read.

    Attributes:
        source: the directory or hub id as it was given.
        config: Hugging Face config.
        adapter: the vision adapter class of its model_type.
    """

    source: str
    config: Any
    adapter: type[VisionAdapter]

    @classmethod
    def load(cls, source: str) -> "Family":
        """Read and check the config of a directory or hub id.

        Raises:
            LuvcError: not found, not a supported vision-language model, or needs remote code.
        """
        config = _load_config(source)
        family = cls(source, config, adapter_class(config.model_type))
        family.adapter.check(config)
        language.check_text_config(config.text_config)
        return family

    @property
    def decoder(self) -> cost.DecoderShape:
        """Language model widths."""
        return language.decoder_shape(self.config.text_config)

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
        if not tokenizer.chat_template:
            tokenizer.chat_template = self._separate_chat_template()
        return tokenizer

    @cached_property
    def image_processor(self) -> Any:
        """The checkpoint's image processor, in its Pillow form."""
        from transformers import AutoImageProcessor

        return self._read(AutoImageProcessor, "preprocessor_config.json", backend="pil")

    def geometry(self, size: tuple[int, int] | None) -> TileGeometry:
        """Tiles and grid for one image of `size` = (height, width); None takes a single tile."""
        size = size or self.adapter.default_size(self.config, self.image_processor)
        return self.adapter.geometry(self.config, self.image_processor, size)

    def problem(self, tiles: TileGeometry, images: int, text: int) -> Problem:
        """The layout as the schedule solver sees it."""
        return Problem(
            decoder=self.decoder,
            encoder=self.encoder,
            grid=tiles.grid,
            multiple=self.multiple,
            tiles=tiles.tiles * images,
            images=images,
            text=text,
        )

    def grid(self, layout: Layout) -> Grid:
        """The vision grid of a layout before merging."""
        return Grid(*layout.grid)

    def layout(
        self, size: tuple[int, int] | None, images: int, text: int, schedule: Schedule
    ) -> Layout:
        """The manifest entry of one image size and count under a schedule."""
        size = size or self.adapter.default_size(self.config, self.image_processor)
        tiles = self.geometry(size)
        problem = self.problem(tiles, images, text)
        merged = merged_grids(tiles.grid, schedule.vision, self.multiple, self.encoder.layers)[-1]
        V = problem.visual_tokens(merged)
        name = f"{size[0]}x{size[1]}" + (f"-{images}images" if images > 1 else "")
        per_tile = merged.tokens // self.encoder.shuffle
        expansion = self.adapter.expansion(self.tokenizer, per_tile, tiles.tiles)
        return Layout(
            name=name,
            image_size=size,
            images=images,
            tiles=tiles.tiles,
            tile_size=tiles.tile_size,
            grid=(tiles.grid.h, tiles.grid.w),
            merged_grid=(merged.h, merged.w),
            tokens_per_tile=per_tile,
            visual_tokens=V,
            baseline_visual_tokens=problem.visual_tokens(tiles.grid),
            expansion=tuple(expansion),
            processor_options=tiles.processor_options,
            schedule=schedule,
            stages=stages_of(schedule.visual_per_layer(self.decoder.layers, V)),
            ratios=problem.ratios(schedule),
            graphs={kind: f"{GRAPHS}/{kind}-{name}.onnx" for kind in ("vision", "prefill", "step")},  # type: ignore[arg-type]
        )

    def _separate_chat_template(self) -> str:
        """The template of checkpoints that keep it in chat_template.json.

        Raises:
            LuvcError: there is none anywhere.
        """
        from transformers.utils.hub import cached_file

        file = cached_file(
            self.source, "chat_template.json", _raise_exceptions_for_missing_entries=False
        )
        if file is None:
            raise LuvcError(f"{self.source} has no chat template; add a chat_template.jinja file")
        return json.loads(Path(file).read_text())["chat_template"]

    def _read(self, auto: Any, what: str, **options: Any) -> Any:
        try:
            return auto.from_pretrained(self.source, trust_remote_code=False, **options)
        except (OSError, ValueError) as e:
            raise LuvcError(f"{self.source}: {what} cannot be read: {brief(e)}") from e


_REMOTE = (
    "{source} needs code of its own (auto_map in config.json), which is never run; use the "
    "checkpoint in Hugging Face's own format (often named -hf); supported: {known}"
)


def _load_config(source: str) -> Any:
    from transformers import AutoConfig

    known = ", ".join(sorted(ADAPTERS))
    path = Path(source)
    if path.is_dir() and not (path / "config.json").is_file():
        raise LuvcError(f"{source} is not a checkpoint: it has no config.json")
    if not path.exists() and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise LuvcError(f"there is no directory {source}")
    if path.is_file():
        raise LuvcError(f"{source} is a file; give the checkpoint's directory or a hub id")
    raw = _raw_config(path)
    if raw.get("auto_map") and raw.get("model_type") not in ADAPTERS:
        raise LuvcError(_REMOTE.format(source=source, known=known))
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as e:  # whatever the hub client and the config classes raise
        if "trust_remote_code" in str(e):
            raise LuvcError(_REMOTE.format(source=source, known=known)) from e
        kind = raw.get("model_type")
        if kind and kind not in ADAPTERS:
            raise LuvcError(
                f"model type {kind!r} is not a supported vision-language family: {known}"
            ) from e
        raise LuvcError(f"no checkpoint can be read at {source!r}: {brief(e)}") from e
    if not hasattr(config, "vision_config"):
        raise LuvcError(
            f"{source} is a {config.model_type} model without a vision tower; supported families: {known}"
        )
    return config


def _raw_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        return {}
    try:
        data = json.loads(file.read_text())
    except ValueError as e:
        raise LuvcError(f"{file} is not valid JSON: {e}") from e
    return data if isinstance(data, dict) else {}


def brief(error: Exception) -> str:
    """The first line of an error's text, at most 200 characters of it."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= 200 else f"{line[:200]}..."
