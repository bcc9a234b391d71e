"""What the reader of one kind of quantised checkpoint must say; `formats` has one file of each."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch

from ....engines.bundle.manifest import GROUP_SIZES, Quantisation
from ....errors import LuvcError, shown
from .coded import Coded
from .parts import PLAIN, Entry, Parts

FLOATS = ("F16", "BF16", "F32")
"""Types of scales."""
INSTEAD = "give the checkpoint it was made from"


class Format(ABC):
    """A library's way to store quantised weights, as a checkpoint's config tells it.

    Attributes:
        PARTS: what a weight is stored as, behind the module's name; every weight has the first.
        UNREAD: numbers for activations or caches, behind a module's name, and what is told of them.
        config: the checkpoint's quantization_config.
        source: what messages call the checkpoint.
    """

    PARTS: ClassVar[tuple[str, ...]]
    UNREAD: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config: Mapping[str, Any], source: str):
        self.config = config
        self.source = source
        self.check()

    @abstractmethod
    def check(self) -> None:
        """Refuse a config that this reader does not know.

        Raises:
            LuvcError: names the value, and what is read.
        """

    @property
    @abstractmethod
    def about(self) -> str:
        """The format for people: "GPTQ, 4 bits"."""

    @property
    def lost(self) -> list[str]:
        """What the config asks of a runtime that bundles do not do, each as a sentence."""
        return []

    @property
    def keeps(self) -> Quantisation | None:
        """How bundles store the codes and scales as they are; None where they cannot."""
        return None

    @abstractmethod
    def shape(self, parts: Parts) -> tuple[int, int]:
        """[N, K] of a weight, from the shapes of its parts.

        Raises:
            LuvcError: a part is missing or does not fit.
        """

    @abstractmethod
    def numbers(self, parts: Parts) -> torch.Tensor:
        """The weight [N, K] as the format's library makes numbers of it.

        Raises:
            LuvcError: a part is missing or does not fit.
        """

    def coded(self, parts: Parts) -> Coded | None:
        """The weight as whole numbers and scales; None where it is none, or rounded otherwise.

        Raises:
            LuvcError: a part is missing or does not fit.
        """
        return None

    def part(self, entry: Entry) -> tuple[str, str] | None:
        """Module and part that a tensor's name says; None for a tensor of plain numbers."""
        for part in sorted((*self.PARTS, *self.UNREAD), key=len, reverse=True):
            if entry.name.endswith(f".{part}"):
                plain = part == "weight" and entry.dtype in PLAIN
                return None if plain else (entry.name.removesuffix(f".{part}"), part)
        return None

    def told(self, *names: str, default: Any = None) -> Any:
        """The config's value under the first of these names that it has."""
        return next((self.config[n] for n in names if self.config.get(n) is not None), default)

    def only(self, known: Iterable[Any], *names: str, default: Any = None) -> Any:
        """A value of the config that must be one of `known`.

        Raises:
            LuvcError: it is not.
        """
        found, known = self.told(*names, default=default), tuple(known)
        if not any(found == value and type(found) is type(value) for value in known):
            read = ", ".join(map(str, known))
            raise self.unknown(f"{names[0]} {shown(found)}", f"{read} is read")
        return found

    def group_size(self, *names: str, default: Any = None) -> int:
        """Inputs that share a scale, -1 for all.

        Raises:
            LuvcError: it is no such number.
        """
        found = self.told(*names, default=default)
        if type(found) is not int or not (found == -1 or 0 < found < 1 << 24):
            raise self.unknown(f"{names[0]} {shown(found)}", "a number of inputs, or -1, is read")
        return found

    def absent(self, *names: str) -> None:
        """Refuse a config with one of these, which change what the weights stand for.

        Raises:
            LuvcError: it has one.
        """
        for name in names:
            if self.config.get(name):
                raise self.unknown(f"{name} {shown(self.config[name])}", "none is read")

    def unknown(self, what: str, read: str) -> LuvcError:
        """What is told of a config that is not read."""
        kind = self.config.get("quant_method", "compressed-tensors")
        return LuvcError(
            f"{self.source} is quantised ({kind}) with {what} in its quantization_config; {read}: {INSTEAD}"
        )


class CodedFormat(Format):
    """A format whose weights are whole numbers and scales, all of them."""

    def numbers(self, parts: Parts) -> torch.Tensor:
        """The weight [N, K] as the format's library makes numbers of it."""
        return self.coded(parts).numbers()

    @abstractmethod
    def coded(self, parts: Parts) -> Coded:
        """The weight as whole numbers and scales.

        Raises:
            LuvcError: a part is missing or does not fit.
        """


def group_count(parts: Parts, part: str, inputs: int, size: int, groups: int) -> None:
    """Refuse scales that are not one for each group of inputs.

    Args:
        parts: of the weight.
        part: the scales.
        inputs: of the weight.
        size: of a group, as the config says; -1 for all inputs.
        groups: that the scales are of.

    Raises:
        LuvcError: a group size that does not divide the inputs, or too many or few groups.
    """
    size = inputs if size == -1 else size
    if inputs % size:
        raise LuvcError(
            f"{parts.source}: {parts.name} has {inputs} inputs, which groups of {size} do not divide: "
            f"{INSTEAD}"
        )
    if inputs // size != groups:
        raise parts.wrong(part, f"should have scales of {inputs // size} groups of {size} inputs")


def kept_groups(size: int) -> Quantisation | None:
    """How bundles store symmetric codes of four bits in groups of this size; None where they cannot."""
    return (
        Quantisation.model_validate({"kind": "int4", "group_size": size})
        if size in GROUP_SIZES
        else None
    )
