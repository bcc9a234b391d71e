"""All scores by their names; a new one is its file, its import and its place in SCORES here."""

from collections.abc import Mapping
from typing import Any, TypeVar

from .base import Score
from .fastv import FastV
from .fixed import Random, Uniform
from .greedy.scores import DivPrune, MMTok, ToDRE
from .ivc import IVC
from .k_norm import KNorm
from .pact import Pact
from .spectrum.score import Spectrum
from .tower import VTCCLS, FasterVLM, FoPru, HiPrune, VFlowOpt, VisionZip
from .transprune import TransPrune
from .visiondrop import VisionDrop

SCORES: dict[str, type[Score]] = {
    score.name: score
    for score in (
        Spectrum,
        Random,
        Uniform,
        FastV,
        Pact,
        KNorm,
        FasterVLM,
        VTCCLS,
        FoPru,
        HiPrune,
        VisionZip,
        VFlowOpt,
        DivPrune,
        ToDRE,
        MMTok,
        IVC,
        VisionDrop,
        TransPrune,
    )
}

OWN = tuple(SCORES)
"""Names of the scores that the product has; `add` makes others known."""

S = TypeVar("S", bound=type[Score])


def add(score: S) -> S:
    """Make a score of one's own known in this process, such as one that is still being tried.

    Raises:
        ValueError: another score has its name.
    """
    if score.name in SCORES:
        raise ValueError(f"there is a score called {score.name!r} already")
    SCORES[score.name] = score
    return score


def make(name: str, options: Mapping[str, Any]) -> Score:
    """A score of this name with these options.

    Raises:
        KeyError: there is none of this name.
        pydantic.ValidationError: an option it does not have, or out of range.
    """
    return SCORES[name](**options)
