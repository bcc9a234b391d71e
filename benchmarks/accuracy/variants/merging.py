"""The product's vision graph with another merge, and attention that counts what tokens stand for.

The weights by size, and log(size) on attention's scores, are those of ToMe, arXiv 2210.09461. Letters: N
graph entries (tiles or images), n tokens of an entry before an OIM step and m after it, D width.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from luvc.engines.bundle.layout import Layout
from luvc.errors import LuvcError
from luvc.exporter.check.teacher_forcing import AnswerRunner
from luvc.exporter.vision.absolute import AbsoluteAdapter
from luvc.exporter.vision.adapter import VisionAdapter
from luvc.exporter.vision.graph import VisionGraph
from luvc.exporter.vision.oim import MatchedStep, Step

Merge = Callable[[Step, Tensor, Tensor], Tensor]
"""From a step, its tokens [N, n, D] and their sizes [N, n, 1] to the merged tokens [N, m, D].

A size is how many tokens of the first grid a token stands for.
"""


def mean(step: Step, x: Tensor, sizes: Tensor) -> Tensor:
    """As the product merges."""
    return step.merge(x)


def largest(step: Step, x: Tensor, sizes: Tensor) -> Tensor:
    """Of each channel the value of largest magnitude, the positive one where two are equally large."""
    index = slots(step, x).expand_as(x)
    empty = x.new_zeros(len(x), step.after.tokens, x.shape[2])
    high = empty.scatter_reduce(1, index, x, "amax", include_self=False)
    low = empty.scatter_reduce(1, index, x, "amin", include_self=False)
    return torch.where(high >= -low, high, low)


def weighted(step: Step, x: Tensor, sizes: Tensor) -> Tensor:
    """Weighted by the sizes."""
    return step.merge(x * sizes) / step.merge(sizes)


def slots(step: Step, x: Tensor) -> Tensor:
    """The merged token that each token of [N, n, ...] goes into, int64 [N, n, 1]."""
    after = torch.arange(step.after.tokens, device=x.device)
    return step.spread(after[None, :, None].expand(len(x), -1, 1))


def summed(step: Step, sizes: Tensor) -> Tensor:
    """Sizes [N, n, 1] -> of the merged tokens, [N, m, 1]."""
    empty = sizes.new_zeros(len(sizes), step.after.tokens, 1)
    return empty.scatter_add(1, slots(step, sizes), sizes)


@dataclass(frozen=True)
class Variant:
    """One way to stand for merged tokens.

    Attributes:
        name: unique.
        about: for the page.
        merge: makes a token of several.
        counts: attention adds log(size) to the scores of each key.
    """

    name: str
    about: str
    merge: Merge = mean
    counts: bool = False


MEAN = Variant("mean", "the plain mean of the tokens that are merged, which is the product's")
VARIANTS = (
    MEAN,
    Variant("largest", "of each channel the value of largest magnitude", largest),
    Variant(
        "weighted",
        "the mean weighted by how many patches each token stands for already",
        weighted,
    ),
    Variant(
        "mean, counted",
        "the plain mean; attention adds log(size) to the scores of a key that stands for `size` patches",
        counts=True,
    ),
    Variant("weighted, counted", "both", weighted, counts=True),
)


class VariantGraph(VisionGraph):
    """The product's vision graph with a variant's merge, for schedules that give the grid back.

    Attributes:
        sizes: [N, n, 1] of the tokens that the layers see now; None before the first step.

    Raises:
        LuvcError: the grid is not given back, or the tower's layers read positions, which merge as well.
    """

    def __init__(self, model: Any, adapter: type[VisionAdapter], layout: Layout, variant: Variant):
        if not issubclass(adapter, AbsoluteAdapter):
            kind = model.config.model_type
            raise LuvcError(
                f"the layers of {kind}'s tower read positions: take a tower that adds them to its patches, "
                "such as internvl's"
            )
        if not layout.schedule.restore:
            raise LuvcError("the variants are of towers whose grid is given back: set restore")
        super().__init__(model, adapter, layout)
        self.variant = variant
        self.sizes: Tensor | None = None

    def through(
        self, pixel_values: Tensor, joins: Sequence[np.ndarray] = ()
    ) -> tuple[Tensor, list[MatchedStep]]:
        """As the product runs the tower."""
        self.sizes = None
        with ExitStack() as stack:
            for module in self._attentions() if self.variant.counts else ():
                hook = module.register_forward_pre_hook(self._counted, with_kwargs=True)
                stack.callback(hook.remove)
            return super().through(pixel_values, joins)

    def _merged(self, x: Tensor, step: Step) -> Tensor:
        """[N, prefix + n, D] -> [N, prefix + m, D]: the prefix stays as it is."""
        sizes = self.sizes
        if sizes is None:
            sizes = x.new_ones(len(x), step.before.tokens, 1)
        self.sizes = summed(step, sizes)
        return self._grid_only(x, lambda grid: self.variant.merge(step, grid, sizes))

    def _attentions(self) -> list[nn.Module]:
        """The layers' attention: what transformers gives an `is_causal`."""
        found = [m for m in self.adapter.layers.modules() if hasattr(m, "is_causal")]
        if len(found) != self.adapter.depth:
            raise LuvcError(
                f"a tower of {self.adapter.depth} layers has {len(found)} attention modules that are known: "
                "leave the variants out that count"
            )
        return found

    def _counted(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple:
        """The same arguments and log(size) as a mask, which attention adds to its scores."""
        if self.sizes is None:
            return args, kwargs
        bias = nn.functional.pad(self.sizes.squeeze(2).log(), (self.adapter.prefix, 0))
        return args, kwargs | {"attention_mask": bias[:, None, None]}


class VariantRunner(AnswerRunner):
    """The product's stages in PyTorch with a variant's merge.

    Args:
        runner: whose model goes on in this one.
        variant: the variant.
    """

    def __init__(self, runner: AnswerRunner, variant: Variant):
        super().__init__(runner.model, runner.family, runner.text_capacity, runner.device)
        self.variant = variant
        self._towers: list[tuple[Layout, VariantGraph]] = []

    def graph(self, kind: type, layout: Layout) -> Any:
        """The product's graphs, but for towers that merge."""
        if kind is not VisionGraph or not layout.schedule.vision:
            return super().graph(kind, layout)
        for known, graph in self._towers:
            if known == layout:
                return graph
        with torch.device(self.device):
            graph = VariantGraph(self.model, self.family.adapter, layout, self.variant)
        self._towers.append((layout, graph))
        return graph
