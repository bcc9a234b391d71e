"""The surfaces: what reaches the product from outside, and what the product does with it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from .material import Material


@dataclass(frozen=True)
class Surface:
    """One way in.

    Attributes:
        inputs: draws the bytes of an input.
        check: what the product does with an input; a LuvcError is a right answer, another is a fault.
    """

    inputs: SearchStrategy[bytes]
    check: Callable[[bytes], object]

    def drawing(self, tried: Callable[[bytes], object]) -> Callable[[bytes], object]:
        """`tried`, on an input that hypothesis draws from random bytes."""
        health: Any = list(HealthCheck)

        @settings(
            database=None, deadline=None, phases=[Phase.generate], suppress_health_check=health
        )
        @given(self.inputs)
        def test(data: bytes) -> None:
            tried(data)

        return test.hypothesis.fuzz_one_input


Maker = Callable[[Material], Surface]
SURFACES: dict[str, Maker] = {}
USUAL = 10
COSTLY = {"weights": 4, "checkpoint_tensors": 1}
"""Shares of the inputs of a run, of surfaces whose inputs take long; others have `USUAL`."""


def surface(maker: Maker) -> Maker:
    """Register a surface under its function's name."""
    SURFACES[maker.__name__] = maker
    return maker


def load() -> dict[str, Maker]:
    """All surfaces by name."""
    from . import bundle_surfaces, checkpoint_surfaces, file_surfaces, request_surfaces

    assert bundle_surfaces and checkpoint_surfaces and file_surfaces and request_surfaces
    return SURFACES
