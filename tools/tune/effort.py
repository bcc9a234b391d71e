"""How long a search takes: told before it, from what its first steps took, and corrected as it goes on."""

from collections.abc import Sequence

import numpy as np

from ...errors import LuvcError
from .candidates import Candidate, moves
from .lab import Lab

STAY = 0.25
"""Part of the candidates that stay behind the first part of the questions; about what is seen."""
ROUNDS = 3
"""That move something, where more are allowed; the same."""


class Effort:
    """Seconds that candidates take on the questions of a lab.

    Args:
        lab: it has measured one candidate, so that it knows what a question takes.
        first: what the first round tries.
        rounds: at most.
    """

    def __init__(self, lab: Lab, first: Sequence[Candidate], rounds: int):
        self.lab, self.rounds = lab, rounds
        self.first = first
        self.known = bool(lab.seconds.get("plain"))

    def of(self, candidate: Candidate, questions: float) -> float:
        """Seconds for a candidate on so many questions."""
        plain = self._usual("plain", 0.0)
        if not self.lab.own_tower(candidate):
            return questions * plain
        return questions * self._usual("own tower", plain + self._usual("tower", 0.0))

    def usual(self, start: Candidate, done: int = 0) -> float:
        """Seconds for what is left after so many rounds, as it usually goes."""
        count = len(self.lab.items)
        asked = count * (1 + STAY * (self.lab.parts - 1)) / self.lab.parts
        ahead = max(1, min(self.rounds - 1, ROUNDS) - max(0, done - 1)) if self.rounds > 1 else 0
        first = 0.0 if done else self._round(self.first, asked)
        return first + ahead * self._round(moves(start), asked)

    def most(self, start: Candidate) -> float:
        """Seconds where every candidate is measured on every question in every round."""
        count = len(self.lab.items)
        later = (self.rounds - 1) * self._round(moves(start), count)
        return self._round(self.first, count) + later

    def _round(self, candidates: Sequence[Candidate], questions: float) -> float:
        return sum(self.of(c, questions) for c in candidates if self._planned(c))

    def _planned(self, candidate: Candidate) -> bool:
        try:
            self.lab.plans(candidate)
        except LuvcError:
            return False
        return True

    def _usual(self, kind: str, otherwise: float) -> float:
        """Seconds a question, without the first one's extra."""
        found = self.lab.seconds.get(kind)
        return float(np.median(found)) if found else otherwise


def minutes(seconds: float) -> str:
    """Seconds for people."""
    count = max(1, round(seconds / 60))
    return "a minute" if count == 1 else f"{count} minutes"
