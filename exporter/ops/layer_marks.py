"""What is traced of the layers: one of each kind between marks, gaps in the place of the others.

onnx/layer_copies.py fills the gaps.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...plugins.contract import DOMAIN

START, END = "start", "end"
PLACES = (START, "cos", "sin", "mask", "positions", "slots", "last")
"""What may enter a layer, in the order of a gap's inputs; all but the first may be absent."""


@dataclass(frozen=True)
class Run:
    """Layers first .. last, alike but for weights and caches.

    Attributes:
        first: index of the first layer, which is traced unless `like` is given.
        last: index of the last one.
        name: the layers' module, such as "model.language_model.layers".
        length: slots of their caches, or tokens where they have none.
        like: traced layer of another run that stands for these.
    """

    first: int
    last: int
    name: str
    length: int
    like: int | None = None


def runs_of(
    breaks: Iterable[int], name: str, lengths: Sequence[int], kinds: Sequence[Any], alone: bool
) -> tuple[Run, ...]:
    """The runs of layers of one kind.

    Args:
        breaks: layers before which something happens to the tokens, so that a run begins there.
        name: the layers' module.
        lengths: of every layer, see Run.
        kinds: of every layer; those of one kind compute the same function.
        alone: trace the first layer of every run.
    """
    layers = range(len(kinds))
    changes = {i for i in layers[1:] if kinds[i] != kinds[i - 1]}
    starts = sorted({0, *breaks} & set(layers) | changes)
    lasts = [*(i - 1 for i in starts[1:]), layers[-1]]
    traced: dict[Any, int] = {}
    found = []
    for first, last in zip(starts, lasts, strict=True):
        known = traced.setdefault(kinds[first], first)
        like = None if alone or known == first else known
        found.append(Run(first, last, name, lengths[first], like))
    return tuple(found)


@torch.library.custom_op(f"{DOMAIN}::layer_mark", mutates_args=())
def layer_mark(x: torch.Tensor, layer: int, place: str) -> torch.Tensor:
    """The tensor itself; in a traced graph, what enters or leaves a layer."""
    return x.clone()


@layer_mark.register_fake
def _(x, layer, place):
    return torch.empty_like(x)


@torch.library.custom_op(f"{DOMAIN}::layer_gap", mutates_args=())
def layer_gap(
    start: torch.Tensor,
    cos: torch.Tensor | None,
    sin: torch.Tensor | None,
    mask: torch.Tensor | None,
    positions: torch.Tensor | None,
    slots: torch.Tensor | None,
    last: torch.Tensor | None,
    layer: int,
) -> torch.Tensor:
    """Stands for a layer that another one's trace will fill."""
    return start.clone()


@layer_gap.register_fake
def _(start, cos, sin, mask, positions, slots, last, layer):
    return torch.empty_like(start)


def bordered(
    layer: Callable[..., torch.Tensor],
    number: int,
    gap: bool,
    start: torch.Tensor,
    **inputs: torch.Tensor | None,
) -> torch.Tensor:
    """`layer(start, **inputs)`, with marks on its borders while tracing, or a gap in its place.

    Args:
        layer: takes the inputs by name and reads nothing else but weights and caches.
        number: its index.
        gap: whether another layer's trace stands for it.
        start: hidden states.
        inputs: named as in PLACES.
    """
    if not torch.compiler.is_exporting():
        return layer(start, **inputs)
    if gap:
        rest = (inputs.get(place) for place in PLACES[1:])
        return torch.ops.luvc.layer_gap(start, *rest, number)
    marked = {
        place: None if x is None else torch.ops.luvc.layer_mark(x, number, place)
        for place, x in inputs.items()
    }
    out = layer(torch.ops.luvc.layer_mark(start, number, START), **marked)
    return torch.ops.luvc.layer_mark(out, number, END)
