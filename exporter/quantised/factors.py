"""Factors of channels as a bundle keeps them: who was divided by them, and whose weights were multiplied.

Letters: N outputs of a product, K its inputs, d head size.
"""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ...errors import LuvcError, brief
from .rounding import CODES, Rounding
from .smoothing import BEFORE, spread

GAINS = "int8"
"""Weights that have factors: kernels round a whole token at once there. Beside GPTQ int4 in groups gains
nothing."""
MEND = "get the bundle again, or export it anew"


@dataclass(frozen=True)
class Factors:
    """Of all layers; names are of modules, unless they are said to be of parameters.

    Attributes:
        head_dim: d.
        sources: norms and products, and what their outputs were divided by, float32 [N].
        readers: products that are given such outputs, and whose; their inputs were multiplied.
        numbers: norms and biases of sources as they are now, by the names of the parameters.
    """

    head_dim: int
    sources: dict[str, torch.Tensor] = field(default_factory=dict)
    readers: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, torch.Tensor] = field(default_factory=dict)

    def add(self, source: str, readers: Sequence[str], factors: torch.Tensor) -> None:
        """Note what a source's outputs are divided by, and who undoes it."""
        self.sources[source] = factors
        self.readers.update(dict.fromkeys(readers, source))

    def rows(self, name: str) -> torch.Tensor | None:
        """What a parameter of a source was divided by: entries of a vector, rows of a product, [N]."""
        return self.sources.get(name.rpartition(".")[0])

    def columns(self, name: str, width: int) -> torch.Tensor | None:
        """What the columns of a product's weight, by the parameter's name, were multiplied by, [K]."""
        source = self.readers.get(name.removesuffix(".weight"))
        return None if source is None else spread(self.sources[source], self.head_dim, width)

    def scaled(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """First rows of a product's weight, [n, K], with their factors moved: what is rounded."""
        columns, rows = self.columns(name, weight.shape[1]), self.rows(name)
        weight = weight.float()
        weight = weight if columns is None else weight * columns
        return weight if rows is None else weight / rows[: len(weight), None]

    def write(self, path: Path, modules: Container[str]) -> None:
        """A file of them; none where there are none.

        Args:
            path: of it.
            modules: of the model; others' factors, of layers that it does not have, are left out.
        """
        from safetensors.torch import save_file

        read: dict[str, list[str]] = {name: [] for name in self.sources if name in modules}
        for reader, source in self.readers.items():
            if source in read:
                read[source].append(reader)
        if read:
            named = {" ".join((name, *readers)): name for name, readers in read.items()}
            save_file({key: self.sources[name] for key, name in named.items()}, path)


def read_factors(
    path: Path, shapes: Mapping[str, Sequence[int]], how: Rounding, layers: str, head_dim: int
) -> Factors:
    """What such a file says, held against the weights that it is of; numbers are not in it.

    What is held against the checkpoint is divided first, so nothing but norms, products and their biases in
    language layers may be, and only where products undo it.

    Args:
        path: of it.
        shapes: of the tensors in the bundle's file of weights.
        how: products are stored there.
        layers: what stands before a language layer's number.
        head_dim: d.

    Raises:
        LuvcError: the file is damaged, names what takes no factors, or holds what are none.
    """
    from safetensors import SafetensorError, safe_open

    found, held = Factors(head_dim), _Held(shapes, how, layers)
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 it is no mapping
                part, (source, *readers) = file.get_slice(name), name.split(" ")
                problem = held.problem(source, readers, part.get_shape(), found)
                if part.get_dtype() != "F32":
                    problem = f"has factors of type {part.get_dtype()}, not F32"
                if problem is None:
                    factors = file.get_tensor(name)
                    found.add(source, readers, factors)
                    right = factors.isfinite().all() and (factors > 0).all()
                    problem = None if right else "has factors that are not finite and above 0"
                if problem is not None:
                    raise LuvcError(f"{path}: {source:.200} {problem}: {MEND}")
    except (OSError, SafetensorError) as e:
        raise LuvcError(f"{path} cannot be read: {brief(e)}: {MEND}") from e
    return found


@dataclass(frozen=True)
class _Held:
    """The weights that factors are said to be of."""

    shapes: Mapping[str, Sequence[int]]
    how: Rounding
    layers: str

    def problem(
        self, source: str, readers: Sequence[str], shape: Sequence[int], found: Factors
    ) -> str | None:
        """Why these cannot be a place's factors; None where they can."""
        layer = re.match(rf"{re.escape(self.layers)}\.\d+\.", source)
        if layer is None:
            return f"is not below {self.layers}"
        product, norm = self._product(source), self.shapes.get(f"{source}.weight", ())
        if product is None and len(norm) != 1:
            return "is no norm and no product"
        width = norm[0] if product is None else product[0]
        if list(shape) != [width] or not width:
            return f"has factors of shape {list(shape)}, not [{width}]"
        if list(self.shapes.get(f"{source}.bias", shape)) != [width]:
            return f"has a bias that is not [{width}]"
        if source in found.sources or not readers or len(set(readers)) < len(readers):
            return "is there twice, or nothing undoes its factors"
        for reader in readers:
            taken = self._product(reader)
            if taken is None or not reader.startswith(layer[0]) or reader in found.readers:
                return f"cannot be undone in {reader:.200}: it is no product of that layer, or there twice"
            if product is None and taken[1] != width:
                return f"cannot be undone in {reader:.200}, which has {taken[1]} inputs"
            if product is not None and not self._follows(reader, source, taken[1], width, found):
                return f"is not what {reader:.200} is given"
        return None

    def _product(self, name: str) -> list[int] | None:
        """[N, K] of a module whose weight is stored as codes."""
        codes = self.shapes.get(f"{name}.weight{CODES}", ())
        return self.how.weight_shape(codes) if len(codes) == 2 else None

    @staticmethod
    def _follows(reader: str, source: str, taken: int, made: int, found: Factors) -> bool:
        """Whether a product is given another's outputs, or each for several heads."""
        parent, _, leaf = reader.rpartition(".")
        if source != f"{parent}.{BEFORE.get(leaf)}":
            return False
        return taken == made or (taken % made == 0 and made % found.head_dim == 0)
