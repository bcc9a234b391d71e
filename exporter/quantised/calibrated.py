"""Codes that were calibrated: they lie in files as a bundle's do, and a bundle is such a file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ...engines.bundle.folder import WEIGHTS, Bundle
from ...engines.bundle.manifest import Quantisation
from ...errors import LuvcError
from .kept import Kept
from .rounding import CODES, SCALES, Rounding


@dataclass(frozen=True)
class Calibrated(Kept):
    """Codes of all products.

    Attributes:
        questions: that they were calibrated on.
    """

    questions: int = field(kw_only=True)


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
    files: Mapping[str, Path], how: Quantisation, dtype: torch.dtype, questions: int
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

    return Calibrated(how, dtype, names=files, found=found, questions=questions)


def codes_of(bundle: Bundle, dtype: torch.dtype) -> Calibrated:
    """What a calibrated bundle holds itself."""
    from safetensors import safe_open

    path, how = bundle.file(WEIGHTS), bundle.manifest.weights
    assert how is not None
    with safe_open(path, "pt") as file:
        names: Iterable[str] = [n for n in file.keys() if n.endswith(CODES)]  # noqa: SIM118
    files = {name.removesuffix(CODES): path for name in names}
    return read_codes(files, how, dtype, bundle.manifest.calibrated)
