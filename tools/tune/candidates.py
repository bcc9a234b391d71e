"""What is tried: the methods, then one choice of the solver's moved at a time."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...engines.bundle.schedule import ENERGY, ScoreSpec, groups_of
from ...errors import LuvcError
from ...exporter.layouts.planned import Planned
from ...exporter.planning.defaults import SolverOptions, shown
from ...exporter.planning.methods import METHODS, USUAL, asked, find, score_of, spec_of
from ...plugins.scores.base import QUESTION
from ...plugins.scores.registry import OWN

BANDS = (
    ("low", 1.0),
    ("low", 0.5),
    ("low", 0.25),
    ("high", 0.0),
    ("high", 0.02),
    ("high", 0.05),
    ("high", 0.1),
    ("high", 0.25),
)
"""Of the spectrum's score: band and cutoff mean something together alone. The first is a token's energy."""
SCORE_OPTIONS: dict[str, dict[str, tuple]] = {
    "spectrum": {"signal": ("normed", "raw")},
    "vtc-cls": {"start": (0.25, 0.5, 0.75)},
    "hiprune": {"alpha": (0.0, 0.1, 0.3), "middle": (0.25, 0.375, 0.5)},
    "visionzip": {"merged": (0.05, 0.125, 0.25)},
    "visiondrop": {"merged": (0.05, 1 / 7, 0.25)},
    "vflowopt": {"threshold": (0.5, 1.0, 2.0)},
    "mmtok": {"temperature": (0.1, 0.2, 0.4)},
    "ivc": {"share": (0.05, 0.1, 0.2)},
}
BAND, SCORE = "band", "score"
_ALL_OPTIONS = {name for options in SCORE_OPTIONS.values() for name in options}
STAGES = (
    (0.0,),
    (0.125,),
    (0.25,),
    (0.5,),
    (0.0, 0.5),
    (0.25, 0.5),
    (0.0, 0.25, 0.5),
    (0.125, 0.25, 0.5),
    (0.25, 0.5, 0.75),
    (0.5, 0.625, 0.75),
)
OIM = ((0.0, False), (0.25, False), (0.5, False), (0.75, False), (0.25, True), (0.5, True))
"""OIM's share, and whether it merges the most similar neighbours: without OIM there is nothing to match."""


@dataclass(frozen=True)
class Candidate:
    """A way to spend the ratio.

    Attributes:
        method: where it began.
        options: of the solver.
        moved: what was moved since, and to what, in words.
    """

    method: str
    options: SolverOptions
    moved: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """For people."""
        return ", ".join((self.method, *(f"{what} {value}" for what, value in self.moved)))

    def having(self, what: str, value: str, options: SolverOptions) -> "Candidate":
        """The same with other options; what was moved before to another value is told no more.

        With another score go the options of the one before.
        """
        over = {what, BAND, *_ALL_OPTIONS} if what == SCORE else {what}
        kept = (move for move in self.moved if move[0] not in over)
        return replace(self, options=options, moved=(*kept, (what, value)))


def of_method(name: str) -> Candidate:
    """A method with its own options.

    Raises:
        LuvcError: there is none.
    """
    return Candidate(name, asked(name, {}))


def first_round(names: str | None) -> list[Candidate]:
    """The methods that are tried.

    Args:
        names: separated by commas; None for all that fit into a schedule, read no question and draw no lots.

    Raises:
        LuvcError: a name that is none, or of a method that no schedule holds.
    """
    if names is None:
        usual = (n for n, m in METHODS.items() if n != "random" and not _reads_question(m.options))
        return [of_method(name) for name in usual if fits_a_schedule(name)]
    wanted = dict.fromkeys((USUAL, *(name.strip() for name in names.split(","))))
    found = [of_method(name) for name in wanted]
    for name in wanted:
        if not fits_a_schedule(name):
            raise LuvcError(
                f"--methods {name}: it changes the picture, which no schedule holds; what is chosen is held "
                "against it anyway, so leave it out"
            )
    return found


def fits_a_schedule(method: str) -> bool:
    """Whether what the method does stands in a schedule, and not in the size of the picture."""
    return find(method).options.smaller != "downsample"


def moves(start: Candidate) -> list[Candidate]:
    """Every choice of a candidate, and of its score, moved by itself to each of its other values."""
    options = start.options
    if options.smaller != "none" or options.elimination == "fit":
        return []
    found = [
        *_of_score(start),
        *(
            start.having("scope", value, replace(options, scope=value))
            for value in ("prompt", "image", "tile")
        ),
        *(start.having("stages", shown(value), _standing(options, value)) for value in STAGES),
        *(
            start.having("keeps", value, replace(options, keeps=value))
            for value in ("geometric", "linear")
        ),
        *(
            start.having("elimination", value, replace(options, elimination=value))
            for value in ("last", "never")
        ),
        *(
            start.having(
                "OIM", _oim_words(share, match), replace(options, oim_share=share, match=match)
            )
            for share, match in OIM
        ),
    ]
    return [candidate for candidate in found if candidate.options != options]


def _of_score(start: Candidate) -> Iterator[Candidate]:
    """Other options of the score, and other scores at the same stages."""
    options, spec = start.options, start.options.score
    if spec.name == "spectrum":
        for band, cutoff in BANDS:
            yield start.having(
                BAND, f"{band}, cutoff {cutoff:g}", options.with_score(band=band, cutoff=cutoff)
            )
    for name, values in SCORE_OPTIONS.get(spec.name, {}).items():
        for value in values:
            yield start.having(name, shown(value), options.with_score(**{name: value}))
    for name in OWN:
        other = spec_of(score_of(ScoreSpec(name=name)))
        if name not in (spec.name, "random") and not other.question:
            yield start.having(SCORE, name, replace(options, score=other))


def _standing(options: SolverOptions, stages: tuple[float, ...]) -> SolverOptions:
    """Other stages; keeps in proportions are of as many stages, so that others fall geometrically."""
    fits = isinstance(options.keeps, str) or len(options.keeps) == len(stages)
    return replace(options, stages=stages, keeps=options.keeps if fits else "geometric")


def _oim_words(share: float, match: bool) -> str:
    return f"share {share:g}" + ", matched" * match if share else "none"


def _reads_question(options: SolverOptions) -> bool:
    return QUESTION in score_of(options.score).reads


def key_of(plans: Sequence[Planned]) -> str:
    """What tells plans apart that do something else: candidates with equal schedules are one."""
    found = []
    for layout in (planned.layout for planned in plans):
        schedule = layout.schedule
        groups = groups_of(schedule.scope, layout.images, layout.images * layout.tiles)
        alike: dict[str, Any] = {"scope": "prompt"}  # scopes of as many groups are one
        if not schedule.scored:
            groups, alike = 1, alike | {"score": ENERGY}
        plain = schedule.model_copy(update=alike).model_dump(mode="json")
        found.append((layout.name, groups, plain))
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]
