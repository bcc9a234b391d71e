"""Factors of channels, moved between products and what comes before them, ahead of rounding.

What products are given is divided by factors, channel by channel, and their weights times them: the
function is the same, and a channel that is larger than the others no longer sets the step that a whole
token is rounded with (SmoothQuant, Xiao et al., arXiv 2211.10438). A norm's weight, or the rows of a
product, take the division in. Letters: N outputs of a product, K its inputs, X [tokens, K] what it was
given, H_kv key/value heads, d head size.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from .rounding import Rounding

STRENGTHS = (0.25, 0.4, 0.5, 0.6, 0.75, 0.9)
"""How much of a channel's size moves into the weights (equation 4): what is tried."""
LEAST = 1e-5
"""Channels and weights below count as this large."""
BEFORE = {"o_proj": "v_proj", "out_proj": "v_proj", "down_proj": "up_proj", "w2": "w3"}
"""Products whose inputs are another's outputs, times what does not depend on the channel's size."""
CLOSE = 1e-5
"""What a norm may change by where it takes factors in, of its largest output."""
LEVELS = 127
"""Kernels round what a product is given to whole numbers up to this."""


@dataclass(frozen=True)
class Place:
    """Where factors may move: names are of modules in a layer.

    Attributes:
        source: the norm or product that takes the division in.
        readers: products that are given its output.
        heads: H_kv and d where each channel of the source reaches all heads of a group.
    """

    source: str
    readers: tuple[str, ...]
    heads: tuple[int, int] | None = None

    def shared(self, values: torch.Tensor) -> torch.Tensor:
        """The readers' channels [K] -> the largest of those that one channel of the source reaches."""
        if self.heads is None:
            return values
        return values.view(self.heads[0], -1, self.heads[1]).amax(1).flatten()

    def spread(self, factors: torch.Tensor, width: int) -> torch.Tensor:
        """Factors of the source's channels -> of the readers' [K]."""
        return spread(factors, width if self.heads is None else self.heads[1], width)


def spread(factors: torch.Tensor, head_dim: int, width: int) -> torch.Tensor:
    """Factors of a source's channels -> of its readers' [K]; fewer are of heads that a group shares."""
    if len(factors) == width:
        return factors
    heads = factors.view(-1, 1, head_dim)
    return heads.expand(-1, width // len(factors), -1).reshape(width)


def places(layer: nn.Module, head_dim: int, run: Callable[[], object]) -> list[Place]:
    """Norms and products whose outputs products are given, as one run shows.

    Args:
        layer: of the language model.
        head_dim: d.
        run: takes something through it.
    """
    made: list[tuple[str, torch.Tensor]] = []
    given: dict[str, torch.Tensor] = {}
    with ExitStack() as stack:
        for name, module in layer.named_modules():
            if isinstance(module, nn.Linear):
                hook = module.register_forward_pre_hook(_keep_given(given, name))
            elif type(module).__name__.endswith("Norm"):
                hook = module.register_forward_hook(_keep_made(made, name))
            else:
                continue
            stack.callback(hook.remove)
        run()
    found = [(source, tuple(n for n, x in given.items() if x is out)) for source, out in made]
    normed = [Place(source, readers) for source, readers in found if readers]
    return normed + list(_between(dict(layer.named_modules()), given, head_dim))


def _keep_given(given: dict[str, torch.Tensor], name: str) -> Callable[[nn.Module, tuple], None]:
    return lambda module, args: given.update({name: args[0]})


def _keep_made(
    made: list[tuple[str, torch.Tensor]], name: str
) -> Callable[[nn.Module, tuple, torch.Tensor], None]:
    return lambda module, args, out: made.append((name, out))


def _between(modules: dict[str, Any], given: dict[str, Any], head_dim: int) -> Iterator[Place]:
    """Products behind products."""
    for name in given:
        parent, _, leaf = name.rpartition(".")
        source = f"{parent}.{BEFORE.get(leaf)}"
        if leaf not in BEFORE or source not in given:
            continue
        made, taken = modules[source].out_features, modules[name].in_features
        if made == taken:
            yield Place(source, (name,))
        elif made < taken and taken % made == 0 and made % head_dim == 0:
            yield Place(source, (name,), (made // head_dim, head_dim))


def is_exact(layer: nn.Module, place: Place, run: Callable[[], torch.Tensor]) -> bool:
    """Whether a division by the source reaches the readers alone, and they undo it.

    Factors that are powers of two change no bit then.

    Args:
        layer: of the language model.
        place: in it.
        run: takes the same through the layer each time.
    """
    width: Any = layer.get_submodule(place.readers[0]).in_features
    few = width if place.heads is None else place.heads[0] * place.heads[1]
    factors = 2.0 ** (torch.arange(few) % 5 - 2)
    before = run()
    with _tried(layer, place, factors, place.spread(factors, width)):
        after = run()
    return torch.equal(before, after)


@contextmanager
def _tried(
    layer: nn.Module, place: Place, less: torch.Tensor, more: torch.Tensor
) -> Iterator[None]:
    source = layer.get_submodule(place.source)
    with ExitStack() as stack:
        hook = source.register_forward_hook(_over(less))
        stack.callback(hook.remove)
        for name in place.readers:
            reader = layer.get_submodule(name)
            again = reader.register_forward_pre_hook(lambda module, args: (args[0] * more,))
            stack.callback(again.remove)
        yield


def _over(less: torch.Tensor) -> Callable[[nn.Module, tuple, torch.Tensor], torch.Tensor]:
    return lambda module, args, out: out / less


def divided(module: nn.Module, factors: torch.Tensor) -> dict[str, torch.Tensor] | None:
    """The parameters of a norm whose output is divided by factors [K]; None where it has none such.

    Some norms multiply by their weight, some by one more than it: a weight of 0 tells.
    """
    own = {name: p.detach().float() for name, p in module.named_parameters()}
    if not {"weight"} <= own.keys() <= {"weight", "bias"} or own["weight"].shape != factors.shape:
        return None
    given = torch.linspace(-2, 3, 4 * len(factors)).view(4, -1).roll(1, 0)
    plain = functional_call(module, own, given)
    nothing = functional_call(module, {n: torch.zeros_like(p) for n, p in own.items()}, given)
    more = 1 if nothing.any() else 0
    new = {"weight": (own["weight"] + more) / factors - more}
    if "bias" in own:
        new["bias"] = own["bias"] / factors
    far = (functional_call(module, new, given) * factors - plain).abs().max()
    return new if far <= CLOSE * plain.abs().max() else None


def searched(
    place: Place,
    weights: Sequence[torch.Tensor],
    rows: torch.Tensor,
    largest: torch.Tensor,
    rounding: Rounding,
) -> torch.Tensor | None:
    """Factors of the source's channels at which the readers' outputs lose least; None for as they are.

    Args:
        place: of them.
        weights: of the readers, [N, K] each.
        rows: some of X.
        largest: of each channel of X, [K].
        rounding: of the weights, to 8 bits; what they are given is, too, with a step for each token, as the
            CPU's kernels do.
    """
    given = place.shared(largest).clamp_min(LEAST)
    held = torch.stack([w.float().abs().amax(0) for w in weights]).amax(0)
    held = place.shared(held).clamp_min(LEAST)
    best, least = None, _lost(weights, rows, torch.ones_like(largest), rounding)
    for strength in STRENGTHS:
        factors = given**strength / held ** (1 - strength)
        factors = factors / (factors.max() * factors.min()).sqrt()
        lost = _lost(weights, rows, place.spread(factors, len(largest)), rounding)
        if lost < least:
            best, least = factors, lost
    return best


def _lost(
    weights: Sequence[torch.Tensor], rows: torch.Tensor, factors: torch.Tensor, how: Rounding
) -> float:
    """The squared error of products' outputs when weights and what they are given are rounded."""
    given, lost = rows / factors, 0.0
    step = given.abs().amax(-1, keepdim=True).clamp_min(1e-12) / LEVELS
    given = (given / step).round_() * step
    for weight in (w.float() for w in weights):
        found = given @ how.decoded(weight * factors).float().T
        lost += float((found - rows @ weight.T).square().sum())
    return lost
