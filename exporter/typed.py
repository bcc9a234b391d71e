"""What people type, read into values: sizes, ratios, options."""

from collections.abc import Iterable

from ..engines.prompt.wishes import parse_ratio
from ..errors import LuvcError
from .config import SOLVER, ExportConfig, flag

__all__ = ["parse_options", "parse_parts", "parse_ratio", "parse_size"]


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
        if name in (*ExportConfig.model_fields, "ratio", *SOLVER):
            own = SOLVER.get(name) or flag(name)
            raise LuvcError(f"--method-option {name} is no option of a score: give {own}")
        if name in found:
            raise LuvcError(f"--method-option {name} is given twice: leave one out")
        found[name] = value
    return found
