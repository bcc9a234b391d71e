"""One model in PyTorch, asked under one schedule after the other: no bundle is written."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engines import VLM
from ..engines.bundle.folder import PROCESSOR, Bundle
from ..engines.bundle.manifest import Manifest
from ..engines.prompt.processing import Processor
from ..exporter.assemble import manifest_of, write_processor
from ..exporter.check.streamed import stream, why_streamed
from ..exporter.check.torch_runner import TorchRunner
from ..exporter.checkpoint.family import Family
from ..exporter.checkpoint.weights import load_model
from ..exporter.config import ExportConfig
from ..exporter.layouts.planned import Planned, image_geometry
from ..exporter.prepare import plan_layouts
from ..exporter.typed import parse_size
from .eval.answering import BundleAnswerer


@dataclass(frozen=True)
class Cost:
    """What a plan costs at its reference prompt.

    Attributes:
        tokens: visual tokens, mean over the language layers.
        flops: of tower and prefill.
        prefill, both: baseline / compressed FLOPs of the prefill, and of tower and prefill.
    """

    tokens: float
    flops: float
    prefill: float
    both: float

    @classmethod
    def of(cls, planned: Planned) -> "Cost":
        """Of one layout with images."""
        layout, problem = planned.layout, planned.problem
        assert problem is not None
        visual = layout.schedule.visual_per_layer(problem.decoder.layers, layout.visual_tokens)
        work = problem.vision_flops(layout.schedule) + problem.prefill_work(layout.schedule)
        return cls(sum(visual) / len(visual), work, layout.ratios.prefill, layout.ratios.both)


def seen_size(model: str, image_size: str | None) -> tuple[int, int]:
    """(height, width) that a model sees a picture in.

    Args:
        model: checkpoint directory or hub id.
        image_size: as it was typed; default as luvc-export's.

    Raises:
        LuvcError: no checkpoint of a supported family, or a size that it cannot have.
    """
    return image_geometry(Family.load(model), parse_size(image_size) if image_size else None).size


class Workbench:
    """A model in float32 on the CPU, and its processor's files beside it; a `with` block cleans up.

    Where memory does not hold it in float32, its weights stay in the checkpoint's files.

    Args:
        family: of the model.
        progress: told each step.
    """

    def __init__(self, family: Family, progress: Callable[[str], None] = lambda step: None):
        self.family = family
        self.model: Any = load_model(family, progress)
        if why := why_streamed(self.model):
            progress(why)
            stream(self.model)
        self._folder = tempfile.TemporaryDirectory(prefix="luvc-workbench-")
        write_processor(family, self.model, self._path / PROCESSOR)
        self._processor: Processor | None = None

    @property
    def _path(self) -> Path:
        return Path(self._folder.name)

    def __enter__(self) -> "Workbench":
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def plans(self, config: ExportConfig) -> tuple[Planned, ...]:
        """The layouts of an export, those without pictures left out.

        Raises:
            LuvcError: the ratio, size or method cannot be had.
        """
        plans = plan_layouts(config, self.family)
        return tuple(planned for planned in plans if planned.problem is not None)

    def answerer(
        self, config: ExportConfig, plans: Sequence[Planned], longest: int
    ) -> BundleAnswerer:
        """Whoever answers under these plans, with at most `longest` tokens."""
        layouts = tuple(planned.layout for planned in plans)
        manifest = manifest_of(config, self.family, layouts, self.model)
        runner = TorchRunner(self.model, self.family, config.text_capacity)
        vlm = VLM(Bundle(self._path, manifest), runner)
        vlm.processor = self.processor(manifest)
        return BundleAnswerer(vlm, longest)

    def processor(self, manifest: Manifest) -> Processor:
        """Whoever makes prompts and pixels for a manifest's layouts; the files are read once."""
        made = Processor(Bundle(self._path, manifest))
        if self._processor is None:
            self._processor = made
        known = self._processor
        made.tokenizer, made.template = known.tokenizer, known.template
        made.image_processor = known.image_processor
        return made
