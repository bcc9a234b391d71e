"""Which weights are quantised: the linear layers of the language model and its head."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from ...engines.bundle.manifest import GROUP_SIZES, Quantisation
from ...errors import LuvcError
from ..language.traits import TextTraits
from .rounding import Rounding

HEAD = "lm_head"
ALIGNED = 4  # bytes: what lies behind an int8 weight in the file stays aligned


def product_weights(model: Any, traits: TextTraits) -> dict[str, Tensor]:
    """Weights [N, K] by name; found by module, so that every family's are.

    Embeddings, norms, convolutions, the vision tower and the projector are left as they are.

    Args:
        model: the Hugging Face model; a head tied to the embedding counts as the head.
        traits: of its text model.
    """
    return {f"{name}.weight": module.weight for name, module in products(model, traits)}


def products(model: Any, traits: TextTraits) -> Iterator[tuple[str, nn.Linear]]:
    """The modules by name, layer after layer, the head behind them."""
    for root in (f"{traits.path}.layers", HEAD):
        for name, module in model.get_submodule(root).named_modules(prefix=root):
            if isinstance(module, nn.Linear):
                yield name, module


def round_weights(model: Any, traits: TextTraits, rounding: Rounding) -> None:
    """Give the products the numbers that their codes stand for; the embedding of a tied head keeps its own.

    Args:
        model: changed in place.
        traits: of its text model.
        rounding: of the weights.
    """
    for module_name, module in products(model, traits):
        name = f"{module_name}.weight"
        if rounding.covers(name):
            numbers = rounding.decoded(module.weight.detach(), name)
            module.weight = nn.Parameter(numbers, requires_grad=False)


def check_widths(weights: dict[str, Tensor], how: Quantisation) -> None:
    """Refuse weights whose inputs cannot be parted into groups.

    Args:
        weights: [N, K] by name.
        how: they are to be stored.

    Raises:
        LuvcError: names the first of them, and what fits.
    """
    size = how.group_size or ALIGNED
    for name, weight in weights.items():
        inputs = weight.shape[1]
        if inputs % size == 0:
            continue
        if how.group_size is None:
            raise LuvcError(
                f"--weights int8: {name} has {inputs} inputs, which is no multiple of {ALIGNED}: leave "
                "--weights out"
            )
        fits = [g for g in GROUP_SIZES if all(w.shape[1] % g == 0 for w in weights.values())]
        mend = f"give --group-size {max(fits)}" if fits else "use --weights int8"
        raise LuvcError(
            f"--group-size {size} does not divide the {inputs} inputs of {name}: {mend}"
        )
