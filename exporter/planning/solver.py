"""The schedule solver: from a ratio to integers that say where tokens vanish.

The ratio is baseline / compressed language prefill FLOPs at a reference prompt. OIM takes the
largest set of steps whose token factor is at most ratio ** oim_share (or, where the grid is given back, the
steps of tower.py, and the SPU makes all of the ratio); the SPU stands at L/8, L/4, L/2
with keeps V r, V r^2, V r^3 and removes the rest before the last layer (defaults.SolverOptions moves all of
these); r is found by search, so that the achieved ratio is in [ratio, 1.02 ratio]. No torch here, so
a plan needs no weights.
"""

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

from ...engines.bundle.schedule import Merge, Prune, Schedule, groups_of
from ...errors import LuvcError
from .defaults import DEFAULTS, SolverOptions
from .grid import Grid, merged_length
from .problem import Problem
from .smaller import solve_grid
from .stages import stage_layers
from .tower import merging, restored_steps

Steps = tuple[Merge, ...]
TOLERANCE = 1.02
SAMPLES = 400


def solve(
    problem: Problem, ratio: float, options: SolverOptions = DEFAULTS, vision: Steps | None = None
) -> Schedule:
    """The schedule for a ratio.

    Args:
        problem: the layout.
        ratio: baseline / compressed FLOPs of the prefill.
        options: what else is asked for.
        vision: OIM steps whose grid is given back, where they are settled already.

    Raises:
        LuvcError: no schedule lands in [ratio, 1.02 ratio]; names what is feasible.
    """
    restored = restored_steps(problem, ratio, options) if vision is None else vision
    if ratio == 1:
        return Schedule(ratio=1, **options.scoring, **merging(restored, options))
    if options.smaller != "none":
        return solve_grid(problem, ratio, options)
    solver = _Solver(problem, ratio, options, restored)
    for eliminate in solver.eliminations:
        for steps in solver.vision_steps():
            found = solver.fit(steps, eliminate)
            if found is not None:
                return found
    raise LuvcError(solver.refusal())


def most_pruned(problem: Problem, options: SolverOptions) -> Schedule:
    """The schedule of the largest ratio of the prefill, where the tower's grid is whole."""
    return _Solver(problem, 1.0, replace(options, restore=True), ()).most_pruned(())


@cache
def smooth_counts(limit: int) -> tuple[int, ...]:
    """0 and all numbers up to `limit` with no prime factor above 7 (fast FFT lengths)."""
    counts = {1}
    for prime in (2, 3, 5, 7):
        powers = [prime**e for e in range(int(math.log(max(limit, 1), prime)) + 2)]
        counts = {c * p for c in counts for p in powers if c * p <= limit}
    return (0, *sorted(counts))


class _Solver:
    """The search for one problem and ratio; keeps the costs it has seen."""

    def __init__(self, problem: Problem, ratio: float, options: SolverOptions, restored: Steps):
        self.problem = problem
        self.restored = restored  # steps whose grid is given back
        self.ratio = ratio
        self.options = options
        self.baseline = problem.prefill_work(Schedule())
        self.groups = groups_of(options.scope, problem.images, problem.tiles)
        shape, last = problem.decoder, options.elimination == "last"
        self.layers = stage_layers(
            options, shape.prompted, shape.prunable if shape.shared else None
        )
        # where layers share keys, the last one runs one token and has nothing to leave out
        self.eliminations = (True, False) if last and not shape.shared else (False,)
        self.least = 1 if options.elimination == "never" else 0  # tokens of a group that stay

    # ---- vision
    def vision_steps(self) -> Iterator[tuple[Merge, ...]]:
        """Step sets whose token factor is at most OIM's share, largest factor first, then fewest.

        One only where the grid is given back.
        """
        if self.options.restore:
            yield self.restored
            return
        limit = self.ratio**self.options.oim_share * (1 + 1e-9)
        for factor, steps in self._all_vision_steps():
            if factor <= limit:
                yield steps

    @cache  # noqa: B019
    def _all_vision_steps(self) -> list[tuple[float, tuple[Merge, ...]]]:
        count = 4 if self.ratio > 16 else 2
        sets: list[tuple[float, tuple[Merge, ...]]] = [(1.0, ())]
        for n in range(1, count + 1):
            axes = ["width", "height", "width", "height"][:n]
            sets += self._sequences(tuple(axes))
        return sorted(sets, key=lambda s: (-s[0], len(s[1])))

    def _sequences(self, axes) -> Iterator[tuple[float, tuple[Merge, ...]]]:
        """All step sequences along the axes, one for each distinct set of lengths."""
        layers = _vision_layers(self.problem.encoder.layers, len(axes))

        def extend(grid: Grid, i: int, merges: tuple[Merge, ...]):
            if i == len(axes):
                yield self.problem.grid.tokens / grid.tokens, merges
                return
            length, seen = grid.length(axes[i]), set()
            for group in range(2, length + 1):
                new = merged_length(length, group, self.problem.multiple.length(axes[i]))
                if new < length and new not in seen:
                    seen.add(new)
                    merge = Merge(layer=layers[i], axis=axes[i], group=group)
                    yield from extend(grid.with_length(axes[i], new), i + 1, (*merges, merge))

        return extend(self.problem.grid, 0, ())

    @cache  # noqa: B019
    def visual_tokens(self, vision: tuple[Merge, ...]) -> int:
        """V after these OIM steps."""
        return self.problem.visual_tokens(() if self.options.restore else vision)

    # ---- language
    def schedule(self, vision: tuple[Merge, ...], keeps, eliminate: bool) -> Schedule:
        """Schedule with these keeps; stages that would drop nothing are left out."""
        V = self.visual_tokens(vision)
        wanted = list(zip(self.layers, keeps, strict=True))
        if eliminate and self.problem.decoder.layers > 1:
            wanted.append((self.problem.decoder.layers - 1, 0))
        stages = []
        for layer, keep in wanted:
            if keep < V:
                stages.append(Prune(layer=layer, keep=keep))
                V = keep
        options = self.options
        return Schedule(
            ratio=self.ratio,
            language=tuple(stages),
            **options.scoring,
            **merging(vision, options),
        )

    def achieved(self, schedule: Schedule) -> float:
        """Baseline / compressed prefill FLOPs."""
        return self.baseline / self.problem.prefill_work(schedule)

    def fit(self, vision: tuple[Merge, ...], eliminate: bool) -> Schedule | None:
        """The schedule nearest above the ratio for these vision steps, or None."""
        if self.options.elimination == "fit":
            return self._dropped(vision)
        V = self.visual_tokens(vision)
        self.problem.check_groups(V, self.options.scope)
        n = len(self.layers)
        lowest = self.achieved(self.schedule(vision, (V,) * n, eliminate))
        highest = self.achieved(self.schedule(vision, self._fewest(V, n), eliminate))
        if not lowest <= self.ratio * TOLERANCE or highest < self.ratio:
            return None
        for counts in self._counts(V):
            fitting = []
            for keeps in self._cascades(V, n, counts):
                candidate = self.schedule(vision, keeps, eliminate)
                ratio = self.achieved(candidate)
                if self.ratio <= ratio <= self.ratio * TOLERANCE:
                    fitting.append((ratio, candidate))
            if fitting:
                return min(fitting, key=lambda f: f[0])[1]
        return None

    def _dropped(self, vision: tuple[Merge, ...]) -> Schedule | None:
        """None from the last layer on that makes the ratio; it may lie more than 2 % above."""
        for layer in range(self.problem.decoder.prunable - 1, 0, -1):
            found = self._dropped_from(vision, layer)
            if self.achieved(found) >= self.ratio:
                return found
        return None

    def _dropped_from(self, vision: tuple[Merge, ...], layer: int) -> Schedule:
        kept = self.schedule(vision, (self.visual_tokens(vision),) * len(self.layers), False)
        return kept.model_copy(update={"language": (Prune(layer=layer, keep=0),)})

    def _counts(self, V: int) -> tuple[Sequence[int], Sequence[int]]:
        """Keeps to choose from, per group: smooth ones first, any if those are too coarse.

        The same without a filter, so that a plan does not depend on the cutoff.
        """
        per_group = V // self.groups
        return smooth_counts(per_group), range(per_group + 1)

    def _cascades(self, V: int, n: int, counts: Sequence[int]) -> set[tuple[int, ...]]:
        """Keeps that fall from V by the law, for r from 0 to 1, rounded to the given counts."""
        keeps = self.options.keeps
        samples = SAMPLES if isinstance(keeps, str) else math.ceil(SAMPLES / min(keeps))
        falls = (self._falling(V // self.groups, n, i / samples) for i in range(samples + 1))
        counts = [count for count in counts if count >= self.least]
        return {tuple(self.groups * _nearest(counts, keep) for keep in fall) for fall in falls}

    def _falling(self, V: int, n: int, r: float) -> list[float]:
        """Keeps of n stages: V r, V r^2, ... or, linear, equal steps down to V r, or in given proportions."""
        keeps = self.options.keeps
        if keeps == "linear":
            return [V * (1 - (1 - r) * j / n) for j in range(1, n + 1)]
        if keeps == "geometric":
            return [V * r**j for j in range(1, n + 1)]
        return [min(V, V * r * part / min(keeps)) for part in self._parts(keeps, n)]

    def _parts(self, keeps: tuple[float, ...], n: int) -> tuple[float, ...]:
        """One proportion for each stage; they fall.

        Raises:
            LuvcError: another number of them than of stages.
        """
        if len(keeps) != n:
            raise LuvcError(
                f"--keeps gives {len(keeps)} parts for {n} stages before layers "
                f"{', '.join(map(str, self.layers))}: give one for each"
            )
        return tuple(sorted(keeps, reverse=True))

    def _fewest(self, V: int, n: int) -> tuple[int, ...]:
        """The keeps of r = 0."""
        keeps = self._falling(V // self.groups, n, 0.0)
        return tuple(self.groups * max(self.least, int(keep)) for keep in keeps)

    def most_pruned(self, vision: tuple[Merge, ...]) -> Schedule:
        """The schedule of the largest ratio for these vision steps."""
        if self.options.elimination == "fit":
            return self._dropped_from(vision, min(1, self.problem.decoder.layers - 1))
        keeps = self._fewest(self.visual_tokens(vision), len(self.layers))
        return self.schedule(vision, keeps, self.eliminations[0])

    # ---- refusal
    def refusal(self) -> str:
        """Why nothing fits, with what does."""
        largest = self._largest()
        asked, p = f"{self.ratio:g}x", self.problem
        tokens = f"{self.visual_tokens(())} visual and {p.text_tokens} text tokens"
        where = f"{tokens} over {p.decoder.layers} layers"
        most = f"the largest feasible ratio is {math.floor(largest * 100) / 100:g}x"
        if self.ratio > largest:
            return (
                f"ratio {asked} is not feasible for {where}: {most}; ask for that or less, "
                f"{'or give' if self.options.restore else 'give a larger --oim-share or'} a --schedule"
            )
        near = ", ".join(f"{r:.2f}x" for r in self._neighbours())
        return (
            f"no schedule lands within 2 % above {asked} for {where}: token counts are too coarse. "
            f"The nearest that exist are {near}; {most}"
        )

    def _largest(self) -> float:
        """The largest ratio of any steps that OIM's share allows there."""
        if self.options.restore:
            return self.achieved(self.most_pruned(()))
        largest = 1.0
        for factor, vision in self._all_vision_steps():
            highest = self.achieved(self.most_pruned(vision))
            if factor <= highest**self.options.oim_share:
                largest = max(largest, highest)
        return largest

    def _neighbours(self) -> list[float]:
        """Achievable ratios just below and just above the one asked for."""
        seen: set[float] = set()
        for vision in self.vision_steps():
            V = self.visual_tokens(vision)
            cascades = self._cascades(V, len(self.layers), self._counts(V)[1])
            for eliminate, keeps in itertools.product(self.eliminations, cascades):
                seen.add(self.achieved(self.schedule(vision, keeps, eliminate)))
        below = max((r for r in seen if r < self.ratio), default=1.0)
        above = min((r for r in seen if r > self.ratio), default=None)
        return [below] if above is None else [below, above]


def _nearest(counts: Sequence[int], value: float) -> int:
    """The count nearest to value; `counts` ascends."""
    i = bisect.bisect_left(counts, value)
    around = counts[max(0, i - 1) : i + 1] or counts[-1:]
    return min(around, key=lambda c: abs(c - value))


def _vision_layers(layers: int, steps: int) -> list[int]:
    """Evenly spaced over the first half of the tower, the first at L/4: 24 layers -> 6, 12."""
    return [min(layers - 1, round(layers / 2 * (i + 1) / max(steps, 2))) for i in range(steps)]
