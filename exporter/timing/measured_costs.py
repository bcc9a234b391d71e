"""A cost model of the first token in milliseconds, fitted to measured probes.

With n tokens in a layer, prefill takes

    fixed + scoring + sum over layers of (a + b n + c n^2)  milliseconds

and a tower that merges what lies on a line through two of them, over their FLOPs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...engines.bundle.schedule import Schedule
from ..planning.problem import Problem


@dataclass(frozen=True)
class StageCosts:
    """Milliseconds: `fixed` per prompt, `scoring` per SPU stage, a + b n + c n^2 per layer."""

    about: ClassVar[str] = "stage costs"

    fixed: float
    scoring: float
    a: float
    b: float
    c: float

    def prefill(self, tokens: Sequence[int], stages: int) -> float:
        """ms of a prompt with these tokens in each layer and `stages` scored SPU stages."""
        n = np.asarray(tokens, float)
        return (
            self.fixed + self.scoring * stages + float(np.sum(self.a + self.b * n + self.c * n**2))
        )


@dataclass(frozen=True)
class TowerCosts:
    """Milliseconds of the vision tower for all tiles of a prompt.

    Attributes:
        whole: without OIM.
        merged: (FLOPs, ms) of towers that merge, the shortest first; OIM's own time is in them.
    """

    about: ClassVar[str] = "the tower's costs"

    whole: float
    merged: tuple[tuple[float, float], ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "merged", tuple((float(x), float(ms)) for x, ms in self.merged))

    def vision(self, flops: float) -> float:
        """ms of a tower that merges, on the line through those measured."""
        (x, low), (y, high) = self.merged[0], self.merged[-1]
        slope = max(0.0, (high - low) / (y - x)) if y > x else low / x
        return low + slope * (flops - x)


@dataclass(frozen=True)
class TimedProblem(Problem):
    """A layout whose work is counted in measured milliseconds instead of FLOPs.

    Attributes:
        costs: of the prefill.
        tower: of the vision tower; None where its time is not asked for, and counted in FLOPs.
    """

    costs: StageCosts = StageCosts(0, 0, 0, 1, 0)
    tower: TowerCosts | None = None

    def vision_work(self, schedule: Schedule) -> float:
        """Milliseconds of the vision tower under a schedule."""
        if self.tower is None:
            return self.vision_flops(schedule)
        return (
            self.tower.vision(self.vision_flops(schedule)) if schedule.vision else self.tower.whole
        )

    def prefill_work(self, schedule: Schedule) -> float:
        """Milliseconds of the language prefill under a schedule."""
        V = self.visual_tokens(schedule.lasting, schedule.exit)
        visual = schedule.visual_per_layer(self.decoder.layers, V)
        scored = len(schedule.scored)
        return self.costs.prefill([v + self.text_tokens for v in visual], scored)


def fit(measured: Sequence[tuple[Sequence[int], int, float]]) -> StageCosts:
    """Least squares of (tokens per layer, scored stages, ms); no coefficient is negative."""
    rows = []
    for tokens, stages, _ in measured:
        n = np.asarray(tokens, float)
        rows.append([1, stages, len(n), n.sum(), (n**2).sum()])
    matrix, target = np.array(rows), np.array([ms for *_, ms in measured])
    scale = np.abs(matrix).max(0)
    used = list(range(5))
    while True:
        found = np.linalg.lstsq(matrix[:, used] / scale[used], target, rcond=None)[0] / scale[used]
        if (found >= 0).all():
            break
        used.pop(int(np.argmin(found * scale[used])))  # noise made it negative: it is near 0
    values = np.zeros(5)
    values[used] = found
    return StageCosts(*map(float, values))
