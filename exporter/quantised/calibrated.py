"""Codes that were calibrated: they lie in files as a bundle's do, and a bundle is such a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from ...engines.bundle.folder import FACTORS, WEIGHTS, Bundle
from ...engines.bundle.manifest import Quantisation
from ...errors import LuvcError, brief
from .factors import GAINS, MEND, Factors, read_factors
from .kept import Kept
from .rounding import CODES, SCALES, Rounding


@dataclass(frozen=True)
class Calibrated(Kept):
    """Codes of all products.

    Attributes:
        questions: that they were calibrated on.
        factors: that they are behind; of int4 there are none.
    """

    questions: int = field(kw_only=True)
    factors: Factors = field(kw_only=True)

    def take_in(self, model: nn.Module) -> None:
        """Give a model, whole or its first layers, the norms and biases that these codes are for.

        Raises:
            LuvcError: one has another shape.
        """
        parameters = dict(model.named_parameters())
        for name, numbers in self.factors.numbers.items():
            if name not in parameters:
                continue  # of a layer behind the first ones
            if numbers.shape != parameters[name].shape:
                raise LuvcError(
                    f"the bundle has {tuple(numbers.shape)} for {name}, which is "
                    f"{tuple(parameters[name].shape)}: it is of another checkpoint; give --model"
                )
            parent, _, leaf = name.rpartition(".")
            taken = nn.Parameter(numbers.clone(), requires_grad=False)
            setattr(model.get_submodule(parent), leaf, taken)


def write_codes(
    path: Path, name: str, codes: torch.Tensor, scales: torch.Tensor, how: Rounding
) -> None:
    """A file of one product.

    Args:
        path: of the file.
        name: of the product.
        codes: int8 [N, K].
        scales: [N, G].
        how: they are stored.
    """
    from safetensors.torch import save_file

    laid = Kept(how.how, how.dtype, names=(name,), found=lambda name, numbers: (codes, scales))
    stored = dict(zip((name + CODES, name + SCALES), laid.encoded(codes, name), strict=True))
    save_file(stored, path)


def read_codes(
    files: Mapping[str, Path],
    how: Quantisation,
    dtype: torch.dtype,
    questions: int,
    factors: Factors,
) -> Calibrated:
    """What lies in files, by the names of the products; one is read at a time."""
    plain = Rounding(how, dtype)

    def found(name: str, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        from safetensors import safe_open

        with safe_open(files[name], "pt") as file:
            codes, scales = (file.get_tensor(name + end) for end in (CODES, SCALES))
        codes = plain.unpacked(codes)
        if codes.shape != numbers.shape:
            raise LuvcError(
                f"{files[name]} has codes for {tuple(codes.shape)} of {name}, which is "
                f"{tuple(numbers.shape)}: they are of another checkpoint; give --model"
            )
        return codes, scales.view(len(codes), -1)

    told = {"questions": questions, "factors": factors}
    return Calibrated(how, dtype, names=files, found=found, **told)


def codes_of(bundle: Bundle, dtype: torch.dtype, layers: str) -> Calibrated:
    """What a calibrated bundle holds itself.

    Args:
        bundle: a loaded bundle.
        dtype: of its numbers.
        layers: what stands before a language layer's number in the model.

    Raises:
        LuvcError: its factors are damaged, or none.
    """
    from safetensors import SafetensorError, safe_open

    path, m = bundle.file(WEIGHTS), bundle.manifest
    assert m.weights is not None
    factors = Factors(m.language.head_dim)
    try:
        with safe_open(path, "pt") as file:
            shapes = {n: file.get_slice(n).get_shape() for n in file.keys()}  # noqa: SIM118
            if FACTORS in m.files:
                factors = _factors(bundle, shapes, Rounding(m.weights, dtype), layers)
            vectors = [f"{name}.{leaf}" for name in factors.sources for leaf in ("weight", "bias")]
            numbers = {n: file.get_tensor(n) for n in vectors if len(shapes.get(n, ())) == 1}
    except (OSError, SafetensorError) as e:
        raise LuvcError(f"{path} cannot be read: {brief(e)}: {MEND}") from e
    factors.numbers.update({name: found.float() for name, found in numbers.items()})
    files = {name.removesuffix(CODES): path for name in shapes if name.endswith(CODES)}
    return read_codes(files, m.weights, dtype, m.calibrated, factors)


def _factors(
    bundle: Bundle, shapes: Mapping[str, Sequence[int]], how: Rounding, layers: str
) -> Factors:
    path = bundle.file(FACTORS)
    if how.how.kind != GAINS:
        raise LuvcError(f"{path}: codes of kind {how.how.kind} have no factors: {MEND}")
    return read_factors(path, shapes, how, layers, bundle.manifest.language.head_dim)
