"""Which products of a model have their codes in its checkpoint, and these codes."""

from collections.abc import Mapping

import torch

from ....engines.bundle.manifest import Quantisation
from ....errors import LuvcError
from .coded import Coded
from .names import ending
from .weights import QuantisedWeights

LEAST = {"int8": -128, "int4": -8}
ALIGNED = 4  # inputs of int8 weights, as bundles store them

HEAD = 2  # last parts of a head's name, which files may have inside the language model


class KeptCodes:
    """Codes by the names that the model has; loaders rename what stands before a layer's number.

    A name may so stand for a tensor of either tower: the one is taken whose numbers the model has.

    Args:
        weights: of the checkpoint.
        how: bundles store the codes.
        products: the weights [N, K] that may be kept, by name.
    """

    def __init__(
        self, weights: QuantisedWeights, how: Quantisation, products: Mapping[str, torch.Tensor]
    ):
        self.weights = weights
        self.how = how
        places: dict[str, list[str]] = {}
        for name in weights.packed:
            places.setdefault(ending(name, HEAD), []).append(name)
        self.names: dict[str, list[str]] = {}
        for name, tensor in products.items():
            fits = tensor.shape[1] % (how.group_size or ALIGNED) == 0
            found = [
                n for n in places.get(ending(name, HEAD), ()) if weights.shape(n) == tensor.shape
            ]
            if found and fits:
                self.names[name] = found

    def of(self, name: str, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """int8 [N, K] around 0 and scales [N, G] of a product.

        Args:
            name: in the model.
            numbers: what the loader made of it.

        Raises:
            LuvcError: no tensor of the checkpoint stands for these numbers, or its zeros are not alike.
        """
        for place in self.names[name]:
            if torch.equal(self.weights.numbers(place), numbers):
                coded = self.weights.format.coded(self.weights.packed[place])
                assert coded is not None
                codes = self._signed(place, coded)
                self.weights.let_go(place)
                return codes, coded.scales
        raise LuvcError(
            f"{self.weights.format.source}: {name} was loaded with other values than {self.names[name][0]} "
            "stands for, so the bundle would be another model; this version does not know such checkpoints"
        )

    def _signed(self, place: str, coded: Coded) -> torch.Tensor:
        least = LEAST[self.how.kind]
        zeros = coded.zeros
        middle = -least if isinstance(zeros, torch.Tensor) else zeros
        if isinstance(zeros, torch.Tensor) and bool(zeros.ne(middle).any()):
            raise self._unlike(place, f"zeros other than {middle}")
        if coded.groups is not None:
            raise self._unlike(place, "groups that do not lie in order")
        codes = coded.codes
        if codes.dtype == torch.uint8:  # 0 to 15 around 8; modulo 256
            codes = (codes - middle).view(torch.int8)
        if self.how.kind == "int4" and bool(((codes < least) | (codes > -least - 1)).any()):
            raise self._unlike(place, "codes beyond four bits")
        return codes

    def _unlike(self, place: str, what: str) -> LuvcError:
        return LuvcError(
            f"{self.weights.format.source}: {place} has {what}, and config.json says that it is "
            f"{self.weights.format.about}, symmetric and in order: mend quantization_config"
        )
