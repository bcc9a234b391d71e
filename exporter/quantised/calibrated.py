"""Codes that were calibrated: they lie in files as a bundle's do, and a bundle is such a file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from ...engines.bundle.folder import FACTORS, WEIGHTS, Bundle
from ...engines.bundle.manifest import Quantisation
from ...errors import LuvcError
from .kept import Kept
from .rounding import CODES, SCALES, Rounding


@dataclass(frozen=True)
class Calibrated(Kept):
    """Codes of all products.

    Attributes:
        questions: that they were calibrated on.
        moved: norms and biases that factors were moved into, by name, and those factors.
    """

    questions: int = field(kw_only=True)
    moved: "Moved" = field(kw_only=True)

    def take_in(self, model: nn.Module) -> None:
        """Give a model, whole or its first layers, the norms and biases that these codes are for."""
        for name in self.moved.keys() & dict(model.named_parameters()).keys():
            parent, _, leaf = name.rpartition(".")
            numbers = nn.Parameter(self.moved[name][0].clone(), requires_grad=False)
            setattr(model.get_submodule(parent), leaf, numbers)


Moved = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""Numbers as they are, and the factors that they were divided by, float32 [K] each."""
DIVISORS = ".factors"
"""Behind a tensor's name in the file of what factors were moved into."""


def write_moved(path: Path, moved: Moved) -> None:
    """A file of norms and biases; none where there are none."""
    from safetensors.torch import save_file

    if moved:
        numbers = {name: numbers for name, (numbers, _) in moved.items()}
        save_file(numbers | {n + DIVISORS: factors for n, (_, factors) in moved.items()}, path)


def read_moved(path: Path) -> Moved:
    """What such a file holds; nothing where there is none."""
    from safetensors.torch import load_file

    if not path.is_file():
        return {}
    found = load_file(path)
    names = [name for name in found if not name.endswith(DIVISORS)]
    return {name: (found[name], found[name + DIVISORS]) for name in names}


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
    questions: int = 0,
    moved: Moved | None = None,
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

    told = {"questions": questions, "moved": moved or {}}
    return Calibrated(how, dtype, names=files, found=found, **told)


def codes_of(bundle: Bundle, dtype: torch.dtype) -> Calibrated:
    """What a calibrated bundle holds itself."""
    from safetensors import safe_open

    path, how = bundle.file(WEIGHTS), bundle.manifest.weights
    assert how is not None
    with safe_open(path, "pt") as file:
        names: Iterable[str] = [n for n in file.keys() if n.endswith(CODES)]  # noqa: SIM118
    files = {name.removesuffix(CODES): path for name in names}
    moved = read_moved(bundle.file(FACTORS)) if FACTORS in bundle.manifest.files else {}
    return read_codes(files, how, dtype, bundle.manifest.calibrated, moved)
