"""From a method's options and a ratio to the product's Schedule, by the product's solver.

The study's ratio is visual tokens at ratio 1 / mean visual tokens over the language model's layers, so
that methods of all kinds are compared at an equal budget. Letters: V visual tokens, L layers.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from luvc.engines.bundle.schedule import Merge, Schedule
from luvc.exporter.planning.defaults import DEFAULTS, SolverOptions
from luvc.exporter.planning.methods import asked
from luvc.exporter.planning.problem import Problem
from luvc.exporter.planning.solver import solve


@dataclass(frozen=True)
class TokenProblem(Problem):
    """The solver's problem with visual tokens in place of FLOPs, so that ratios are token ratios."""

    @classmethod
    def of(cls, problem: Problem) -> "TokenProblem":
        """The same layout of the same model."""
        return cls(**_fields(problem))

    def prefill_work(self, schedule: Schedule) -> float:
        """Visual tokens summed over the language layers; at least 1, for ratios divide by it."""
        return max(1.0, self.mean(schedule) * self.decoder.layers)

    def mean(self, schedule: Schedule) -> float:
        """Visual tokens of a prompt, mean over the layers."""
        V, L = self.visual_tokens(schedule.lasting, schedule.exit), self.decoder.layers
        return sum(schedule.visual_per_layer(L, V)) / L


@dataclass(frozen=True)
class Budget:
    """A problem and a ratio."""

    problem: TokenProblem
    ratio: float

    @property
    def layers(self) -> int:
        """L."""
        return self.problem.decoder.layers

    @property
    def tokens(self) -> int:
        """V at ratio 1."""
        return self.problem.visual_tokens(())

    @property
    def mean(self) -> float:
        """Visual tokens of a prompt to keep, mean over the layers."""
        return self.tokens / self.ratio


Plan = Callable[[Budget, int], Schedule]
"""Spends a budget; the number is the seed of what is drawn at random.

It raises LuvcError where there is no schedule.
"""


def unmodified(budget: Budget, seed: int) -> Schedule:
    """Ratio 1."""
    return Schedule()


def solved(options: SolverOptions) -> Plan:
    """What the product's solver makes of options."""
    return lambda budget, _: solve(budget.problem, budget.ratio, options)


def named(name: str, drawn: bool = False, **options: Any) -> Plan:
    """A method of the product by its name.

    Args:
        name: of the method.
        drawn: its score has a seed.
        options: of the solver, in place of the method's own.
    """

    def plan(budget: Budget, seed: int) -> Schedule:
        own = asked(name, options | ({"seed": seed} if drawn else {}))
        return solve(budget.problem, budget.ratio, own)

    return plan


def of_flops(budget: Budget, seed: int) -> Schedule:
    """What luvc-export's --ratio plans: a ratio of FLOPs, at the default number of text tokens."""
    problem = replace(Problem(**_fields(budget.problem)), text_tokens=Problem.text_tokens)
    return solve(problem, budget.ratio, DEFAULTS)


def oim_only(match: bool = False) -> Plan:
    """OIM steps alone, at most one of each axis: the grid nearest to the budget, then to a square.

    Args:
        match: the most similar neighbours are merged.
    """

    def plan(budget: Budget, seed: int) -> Schedule:
        def far(schedule: Schedule) -> tuple[float, int, int]:
            end = budget.problem.grids(schedule)[-1]
            off = abs(budget.problem.mean(schedule) - budget.mean)
            return off, abs(end.h - end.w), len(schedule.vision)

        steps = [
            Schedule(vision=(*a, *b), match=match)
            for a in _steps(budget, "width", 1 / 4)
            for b in _steps(budget, "height", 1 / 2)
        ]
        return min(steps, key=far)

    return plan


def _steps(budget: Budget, axis, part: float) -> list[tuple[Merge, ...]]:
    """No step, or one that leaves another length of the axis, before a part of the tower's layers."""
    length = budget.problem.grid.length(axis)
    multiple = budget.problem.multiple.length(axis)
    layer = round(budget.problem.encoder.layers * part)
    groups: dict[int, int] = {}
    for group in range(2, length + 1):
        after = -(-(length - length // group) // multiple) * multiple
        if after < length:
            groups.setdefault(after, group)
    found = (Merge(layer=layer, axis=axis, group=group) for group in groups.values())
    return [(), *((merge,) for merge in found)]


def _fields(problem: Problem) -> dict[str, Any]:
    return {f.name: getattr(problem, f.name) for f in fields(Problem)}
