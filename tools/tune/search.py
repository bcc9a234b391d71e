"""Round after round: what is surely worse leaves early, and what is surely better is taken.

Nothing here knows of models: a test can plant an optimum.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...errors import LuvcError
from ..eval.intervals import Share, bootstrap_mean
from .candidates import Candidate

DRAWS = 10_000
"""Of the bootstrap that decides: its intervals are wide ones."""


class Measure(Protocol):
    """What candidates lose on the questions that a search may look at."""

    @property
    def parts(self) -> int:
        """Of the questions; candidates are measured on one after the other."""
        ...

    def key(self, candidate: Candidate) -> str:
        """What a candidate does; those with equal keys are one.

        Raises:
            LuvcError: it has no plan.
        """
        ...

    def loss(self, candidate: Candidate, part: int) -> np.ndarray:
        """Loss of each question of a part, float64 [questions]."""
        ...


@dataclass(frozen=True)
class Tried:
    """A candidate in a round.

    Attributes:
        candidate: what was tried.
        loss: mean over the questions it was measured on.
        parts: how many of the parts it was measured on.
        gain: less loss than what the round began with, on the same questions, paired; where it was
            measured on all, with the interval that decides.
        taken: whether the round moved to it.
    """

    candidate: Candidate
    loss: float
    parts: int
    gain: Share
    taken: bool = False


@dataclass(frozen=True)
class Round:
    """What was tried from a candidate.

    Attributes:
        start: what it began with.
        loss: of that.
        tried: best first, those that stayed longest before the others.
        refused: candidates without a plan, and why.
    """

    start: Candidate
    loss: float
    tried: tuple[Tried, ...]
    refused: tuple[tuple[Candidate, str], ...]

    @property
    def end(self) -> Candidate:
        """What the next round begins with."""
        return next((t.candidate for t in self.tried if t.taken), self.start)


def search(
    measure: Measure,
    start: Candidate,
    first: Sequence[Candidate],
    moves: Callable[[Candidate], Sequence[Candidate]],
    rounds: int,
) -> Iterator[Round]:
    """Round after round, until one behind the first takes nothing.

    Args:
        measure: of the questions to tune on; asked again for what it knows.
        start: what is used where nothing is surely better.
        first: what the first round tries.
        moves: what later ones try from a candidate.
        rounds: at most.
    """
    for number in range(rounds):
        found = race(measure, start, moves(start) if number else first)
        yield found
        if number and found.end is start:
            return
        start = found.end


def race(measure: Measure, start: Candidate, candidates: Sequence[Candidate]) -> Round:
    """Measure candidates part by part; those surely worse than the best so far leave.

    The best of those that are left at the end is taken if its gain over `start` is surely above 0, on all
    parts. As many intervals are looked at as there are left, so each is as much wider (Bonferroni). With
    plain ones a third of the rounds would move in which all are alike, with these about a tenth.
    """
    alive, refused = _distinct(measure, start, candidates)
    tried, base = [], np.zeros(0)
    losses = {id(c): np.zeros(0) for c in alive}
    for part in range(measure.parts):
        base = np.append(base, measure.loss(start, part))
        for c in alive:
            losses[id(c)] = np.append(losses[id(c)], measure.loss(c, part))
        if part + 1 < measure.parts:
            best = min([base, *(losses[id(c)] for c in alive)], key=np.mean)
            stay = [c for c in alive if bootstrap_mean(losses[id(c)] - best).low <= 0]
            left = [c for c in alive if c not in stay]
            tried += [_tried(c, losses[id(c)], base, part + 1, 0.05) for c in left]
            alive = stay
    outside = 0.05 / max(1, len(alive))
    tried += [_tried(c, losses[id(c)], base, measure.parts, outside) for c in alive]
    tried.sort(key=lambda t: (-t.parts, t.loss))
    return Round(start, float(base.mean()), _decided(tried, measure.parts), tuple(refused))


def _distinct(
    measure: Measure, start: Candidate, candidates: Sequence[Candidate]
) -> tuple[list[Candidate], list[tuple[Candidate, str]]]:
    """Candidates that do something else than `start` and each other, and those without a plan."""
    seen, alive = {measure.key(start)}, []
    refused = []
    for candidate in candidates:
        try:
            key = measure.key(candidate)
        except LuvcError as error:
            refused.append((candidate, str(error)))
            continue
        if key not in seen:
            seen.add(key)
            alive.append(candidate)
    return alive, refused


def _tried(
    candidate: Candidate, losses: np.ndarray, base: np.ndarray, parts: int, outside: float
) -> Tried:
    gain = bootstrap_mean(base - losses, outside, DRAWS)
    return Tried(candidate, float(losses.mean()), parts, gain)


def _decided(tried: Sequence[Tried], parts: int) -> tuple[Tried, ...]:
    """The same with what the round takes."""
    sure = [t for t in tried if t.parts == parts and t.gain.low > 0]
    best = min(sure, key=lambda t: t.loss, default=None)
    return tuple(Tried(t.candidate, t.loss, t.parts, t.gain, taken=t is best) for t in tried)
