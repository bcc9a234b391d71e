"""What people type, read into values: sizes, ratios, options."""

import math
from collections.abc import Iterable

from ..errors import LuvcError
from .config import SOLVER, ExportConfig, flag


def parse_size(text: str) -> tuple[int, int]:
    """An image size as people type it: "448x672" is height 448, width 672; "448" is square.

    Raises:
        LuvcError: not a size.
    """
    parts = text.lower().split("x")
    try:
        numbers = [int(p) for p in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or min(numbers) <= 0:
        raise LuvcError(f"image size {text!r} is not HEIGHTxWIDTH in pixels, such as 448x448")
    return numbers[0], numbers[-1]


def parse_parts(text: str, option: str) -> tuple[float, ...]:
    """Parts of something as people type them: "0.125,0.25,0.5".

    Raises:
        LuvcError: not numbers; their range is ExportConfig's matter.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as e:
        raise LuvcError(f"{option} {text!r} are not numbers such as 0.125,0.25,0.5") from e


def parse_options(texts: Iterable[str]) -> dict[str, str]:
    """Options of a score as people type them, "cutoff=0.05" each; their values are checked by the score.

    Raises:
        LuvcError: no NAME=VALUE, a name twice, or the name of an option of its own.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise LuvcError(f"--method-option {text!r:.80} is not NAME=VALUE, such as cutoff=0.05")
        if name in ExportConfig.model_fields or name in SOLVER:
            own = SOLVER.get(name) or flag(name)
            raise LuvcError(f"--method-option {name} is no option of a score: give {own}")
        if name in found:
            raise LuvcError(f"--method-option {name} is given twice: leave one out")
        found[name] = value
    return found


def parse_ratio(text: str) -> float:
    """A ratio as people type it: "2x", "2", "1.5x".

    Raises:
        LuvcError: not a finite number of at least 1.
    """
    try:
        ratio = float(text.strip().lower().removesuffix("x"))
    except ValueError:
        ratio = math.nan
    if not math.isfinite(ratio):
        raise LuvcError(f"ratio {text!r} is not a number: write it as 2x, 2 or 1.5x")
    if ratio < 1:
        raise LuvcError(
            f"ratio {text} is below 1, which would add work: use 1 (no compression) or more"
        )
    return ratio
