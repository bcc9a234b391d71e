"""What a request says of the layout it runs in, beside how its answer is sampled."""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, cast

from ...errors import LuvcError, shown
from ..sampling import SamplingOptions


class RequestOptions(SamplingOptions, total=False):
    """What a request may ask for: the fields of `Wish` and those of `Sampling`."""

    layout: str | None
    ratio: float | None
    image_tokens: int | None


@dataclass(frozen=True)
class Wish:
    """What a request says of its layout; at most one of these.

    Attributes:
        layout: its name.
        ratio: baseline / compressed; the nearest that the bundle holds is taken.
        image_tokens: most visual tokens of a picture in a language layer, in the mean of all layers; of
            what fits, most tokens are taken.

    Raises:
        LuvcError: more than one, or out of range.
    """

    layout: str | None = None
    ratio: float | None = None
    image_tokens: int | None = None

    @property
    def given(self) -> list[str]:
        """Names of the fields that are asked for."""
        return [name for name, value in vars(self).items() if value is not None]

    def __post_init__(self):
        if len(self.given) > 1:
            raise LuvcError(f"{' and '.join(self.given)} choose the layout: give one of them")
        if self.layout is not None and not isinstance(self.layout, str):
            raise LuvcError(f"a layout is chosen by its name, got {type(self.layout).__name__}")
        if self.ratio is not None and not (_number(self.ratio) and 1 <= self.ratio < math.inf):
            raise LuvcError(
                f"ratio {shown(self.ratio)} is no number of at least 1: give 2 for half the work"
            )
        tokens: Any = self.image_tokens
        if tokens is not None and not (_number(tokens) and tokens == int(tokens) and tokens > 0):
            raise LuvcError(f"image_tokens {shown(tokens)} is no whole number above 0")


NOTHING = Wish()
"""The wish of a request that says nothing."""


def _number(value: object) -> bool:
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def wish_of(asked: "str | Wish | None") -> Wish:
    """The wish of a layout's name, or of nothing at all.

    Raises:
        LuvcError: see Wish.
    """
    return asked if isinstance(asked, Wish) else Wish(layout=asked)


def parted(options: RequestOptions) -> tuple[Wish, SamplingOptions]:
    """The wish among a request's options, and the rest.

    Raises:
        LuvcError: see Wish.
    """
    rest: dict[str, Any] = dict(options)
    wish = Wish(**{name: rest.pop(name, None) for name in Wish.__dataclass_fields__})
    return wish, cast(SamplingOptions, rest)


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
