"""Who answers: a bundle on a backend, the bundle's stages in PyTorch, or Hugging Face's generate."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ...engines.bundle.folder import MANIFEST, Bundle
from ...engines.bundle.layout import Layout
from ...engines.prompt.processing import Processor, open_image
from ...engines.prompt.wishes import parse_ratio
from ...errors import LuvcError
from .items import Item

REFERENCES = ("torch", "hf")
"""Names beside those of the backends."""


@dataclass(frozen=True)
class Batch:
    """Questions of one layout; their pictures are opened."""

    layout: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Prediction:
    """An answer.

    Attributes:
        text: of it.
        visual_tokens: that entered the language model for it.
        tokens: its ids, the end token included; none where the answerer does not tell them.
    """

    text: str
    visual_tokens: int
    tokens: tuple[int, ...] = ()


class Answerer(Protocol):
    """Answers batches of questions, greedily."""

    description: str
    ratio: float  # of the schedule; 1 where nothing is compressed
    processor: Processor  # of the layouts that are asked about

    def answer(self, batch: Batch) -> list[Prediction]:
        """One prediction for each question."""
        ...

    def close(self) -> None:
        """Give the model's memory back."""
        ...


class BundleAnswerer:
    """A bundle through the runtime.

    Args:
        vlm: the bundle on a backend's runner or on PyTorch.
        max_new_tokens: longest answer.
        layouts: those that are asked; default all.
        ratio: of them; default the first's.
    """

    def __init__(
        self,
        vlm: Any,
        max_new_tokens: int,
        layouts: Sequence[Layout] | None = None,
        ratio: float | None = None,
    ):
        self.vlm, self.max_new_tokens = vlm, max_new_tokens
        self.ratio = vlm.manifest.layouts[0].schedule.ratio if ratio is None else ratio
        self.processor: Processor = vlm.processor.of(layouts or vlm.manifest.layouts)
        self.description = vlm.runner.description

    def answer(self, batch: Batch) -> list[Prediction]:
        """Answers of one batch."""
        answers = self.vlm.generate(
            [item.messages for item in batch.items],
            layout=batch.layout,
            max_new_tokens=self.max_new_tokens,
            temperature=0,
        )
        return [Prediction(a.text, a.visual_tokens, tuple(a.token_ids)) for a in answers]

    def close(self) -> None:
        """Give the model's memory back."""
        self.vlm.close()


class HfAnswerer:
    """Hugging Face's generate in float32 on a bundle's tiles at ratio 1, one question at a time.

    Args:
        bundle: gives the layouts, the processor and the dtype that the weights are rounded to.
        model: its checkpoint: directory, hub id or ID@REVISION.
        max_new_tokens: longest answer.
    """

    def __init__(self, bundle: Bundle, model: str, max_new_tokens: int):
        import transformers

        from ...dtypes import DTYPES
        from ...exporter.checkpoint.family import Family
        from ...exporter.checkpoint.weights import load_model
        from ..hugging_face import unmerged

        self._family = family = Family.load(model)
        self.processor = unmerged(bundle, family)
        self.model = load_model(family).to(DTYPES[bundle.manifest.dtype].torch).float()
        self.max_new_tokens = max_new_tokens
        self.description = f"transformers {transformers.__version__} generate, float32"
        self.ratio = 1.0

    def answer(self, batch: Batch) -> list[Prediction]:
        """Answers of one batch, one after the other: no padding can change them."""
        return [self._answer(item, batch.layout) for item in batch.items]

    def close(self) -> None:
        """Give the model's memory back."""
        del self.model

    def _answer(self, item: Item, layout: str) -> Prediction:
        import torch

        from ..hugging_face import model_inputs

        prompt = self.processor.prompt(item.messages, layout)
        inputs = model_inputs(self.model, self._family, self.processor, [prompt])
        with torch.inference_mode():
            out = self.model.generate(
                **inputs, do_sample=False, max_new_tokens=self.max_new_tokens
            )[0, len(prompt.input_ids) :]
        text = self.processor.tokenizer.decode(out, skip_special_tokens=True)
        return Prediction(text, prompt.layout.visual_tokens)


def load(
    target: Path,
    backend: str,
    model: str | None,
    max_new_tokens: int,
    threads: int,
    ratio: str | None = None,
) -> Answerer:
    """Whoever is to answer.

    Args:
        target: bundle folder.
        backend: "auto", a backend's name, "torch" or "hf".
        model: checkpoint of the bundle, default the one it names.
        max_new_tokens: longest answer.
        threads: of the backend.
        ratio: of the layouts to ask, as it was typed; default the bundle's first.

    Raises:
        LuvcError: not a bundle or none of this ratio, or the backend cannot run it.
    """
    from ...engines import VLM

    if not (target / MANIFEST).is_file() and (target / "config.json").is_file():
        raise LuvcError(
            f"{target} is a checkpoint: export it first (--ratio 1 leaves it as it is), then evaluate the "
            "bundle"
        )
    bundle = Bundle.load(target)
    layouts, taken = of_ratio(bundle, None if ratio is None else parse_ratio(ratio))
    if backend not in REFERENCES:
        vlm = VLM.of(bundle, backend=backend, threads=threads)
        return BundleAnswerer(vlm, max_new_tokens, layouts, taken)
    from ...exporter.check.parity import reference_runner
    from ...exporter.checkpoint.hub import checkpoint_of

    if backend == "hf":
        only = bundle.manifest.model_copy(update={"layouts": layouts})
        checkpoint = checkpoint_of(bundle.manifest, model)
        return HfAnswerer(replace(bundle, manifest=only), checkpoint, max_new_tokens)
    vlm = VLM(bundle, reference_runner(bundle, model))
    return BundleAnswerer(vlm, max_new_tokens, layouts, taken)


def of_ratio(bundle: Bundle, ratio: float | None) -> tuple[tuple[Layout, ...], float]:
    """The layouts of one ratio, those without a picture among them, and that ratio: an evaluation is of one.

    Args:
        bundle: a loaded bundle.
        ratio: which; None is the first.

    Raises:
        LuvcError: it holds no such ratio; says which it holds.
    """
    m = bundle.manifest
    ratios = list(dict.fromkeys(layout.ratio for layout in m.pictured))
    if ratio is None:
        several = len({(x.asked_size, x.images, x.frames) for x in m.pictured}) < len(m.pictured)
        if not several:  # each size has one, whatever its schedule was solved for
            return m.layouts, m.layouts[0].schedule.ratio
        ratio = ratios[0]
    kept = tuple(x for x in m.layouts if not x.images or math.isclose(x.ratio, ratio))
    if not any(x.images for x in kept):
        held = ", ".join(f"{r:g}x" for r in ratios)
        raise LuvcError(f"--ratio {ratio:g}x is not in {bundle.path}, which holds {held}")
    return kept, ratio


def seen_size(answerer: Answerer) -> tuple[int, int] | None:
    """(height, width) that pictures are seen in at most; None where no layout has any."""
    sizes = [layout.asked_size for layout in answerer.processor.manifest.pictured]
    return max(sizes, key=min, default=None)


def askable(answerer: Answerer, items: Sequence[Item]) -> list[Item]:
    """Items with as many pictures as a layout takes."""
    counts = {layout.images for layout in answerer.processor.manifest.layouts}
    return [item for item in items if len(item.images) in counts]


def batches(answerer: Answerer, items: Sequence[Item], size: int) -> Iterator[Batch]:
    """At most `size` items of one layout at a time; pictures are opened once, when their turn comes.

    Raises:
        LuvcError: a picture cannot be read.
    """
    groups: dict[str, list[Item]] = {}
    for item in items:
        opened = replace(item, images=tuple(open_image(image) for image in item.images))
        name = answerer.processor.layout_for(opened.images).name
        groups.setdefault(name, []).append(opened)
        if len(groups[name]) == size:
            yield Batch(name, tuple(groups.pop(name)))
    for name, rest in groups.items():
        yield Batch(name, tuple(rest))
