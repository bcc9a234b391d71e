"""The surfaces: what reaches the product from outside, and what the product does with it."""

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis.strategies import SearchStrategy

from .material import Material


@dataclass(frozen=True)
class Surface:
    """One way in.

    Attributes:
        inputs: draws the bytes of an input.
        check: what the product does with an input; a LuvcError is a right answer, another is a fault.
        weight: its share of the inputs of a run, beside the others'.
    """

    inputs: SearchStrategy[bytes]
    check: Callable[[bytes], object]
    weight: int = 10


Maker = Callable[[Material], Surface]
SURFACES: dict[str, Maker] = {}


def surface(maker: Maker) -> Maker:
    """Register a surface under its function's name."""
    SURFACES[maker.__name__] = maker
    return maker


def load() -> dict[str, Maker]:
    """All surfaces by name."""
    from . import bundle_surfaces, checkpoint_surfaces, file_surfaces, request_surfaces

    assert bundle_surfaces and checkpoint_surfaces and file_surfaces and request_surfaces
    return SURFACES
