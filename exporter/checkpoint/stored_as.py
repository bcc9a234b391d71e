"""How a bundle stores the language model's products: rounded, as the checkpoint has them, or as numbers."""

from typing import Any

import torch

from ...engines.bundle.manifest import Quantisation
from ..quantised.kept import Kept
from ..quantised.products import HEAD, check_widths, product_weights
from ..quantised.rounding import Rounding
from .family import Family
from .quantised.kept_codes import KeptCodes
from .weights import quantised_weights, weight_files


def rounding_of(
    family: Family, model: Any, dtype: torch.dtype, how: Quantisation | None
) -> Rounding | None:
    """What makes codes of products; None where all weights are stored as numbers.

    Args:
        family: of the model.
        model: shapes alone are enough to plan.
        dtype: of the bundle's numbers.
        how: products are to be rounded; None for what the checkpoint has.

    Raises:
        LuvcError: a weight does not fit the groups, or the checkpoint is damaged.
    """
    products = product_weights(model, family.traits)
    if how is not None:
        check_widths(products, how)
        return Rounding(how, dtype)
    kept = family.format.keeps if family.format else None
    if kept is None:
        return None
    if not weight_files(family):  # of a hub id that was never loaded: heads are rarely quantised
        names = [name for name in products if not name.startswith(HEAD)]
        return Kept(kept, dtype, names=names, found=_not_there)
    codes = KeptCodes(quantised_weights(family), kept, products)
    return Kept(kept, dtype, names=codes.names, found=codes.of) if codes.names else None


def _not_there(name: str, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    raise RuntimeError(f"{name} is asked for, and the checkpoint's files are not there")
