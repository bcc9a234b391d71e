"""Every configuration of the study at a ratio: what is merged, selected and pruned, and where.

The study's ratio is visual tokens at ratio 1 / mean visual tokens over the language model's layers, so
that methods of all kinds are compared at an equal budget. Letters: V visual tokens, L layers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

from luvc.engines.bundle.schedule import Merge, Prune, Schedule
from luvc.errors import LuvcError
from luvc.exporter.planning.defaults import DEFAULTS, SolverOptions
from luvc.exporter.planning.flops import DecoderShape, EncoderShape
from luvc.exporter.planning.grid import Grid
from luvc.exporter.planning.problem import Problem
from luvc.exporter.planning.solver import solve

LEAST = 0.02
"""Part of the visual tokens below which a stage of another method is that method in name only."""


@dataclass(frozen=True)
class TokenProblem(Problem):
    """The solver's problem with visual tokens in place of FLOPs, so that ratios are token ratios."""

    def prefill_work(self, schedule: Schedule) -> float:
        """Visual tokens summed over the language layers."""
        return float(sum(self.visual(schedule)))

    def visual(self, schedule: Schedule) -> tuple[int, ...]:
        """V_l of every layer."""
        V = self.visual_tokens(schedule.vision, schedule.exit)
        return schedule.visual_per_layer(self.decoder.layers, V)


def token_problem(config, pictures: int) -> TokenProblem:
    """The problem of a checkpoint's config for prompts with so many pictures of one tile."""
    v, t = config.vision_config, config.text_config
    shuffle = round(1 / config.downsample_ratio)
    decoder = DecoderShape(
        t.num_hidden_layers,
        t.hidden_size,
        t.num_attention_heads,
        t.num_key_value_heads,
        t.hidden_size // t.num_attention_heads,
        t.intermediate_size,
        t.vocab_size,
    )
    encoder = EncoderShape(
        v.num_hidden_layers,
        v.hidden_size,
        v.intermediate_size,
        1,
        v.num_channels * v.patch_size[0] * v.patch_size[1],
        shuffle**2,
        (v.hidden_size * shuffle**2, t.hidden_size, t.hidden_size),
    )
    grid = Grid(v.image_size[0] // v.patch_size[0], v.image_size[1] // v.patch_size[1])
    return TokenProblem(decoder, encoder, grid, Grid(shuffle, shuffle), pictures, pictures)


@dataclass(frozen=True)
class Plan:
    """Integers of one configuration for prompts with P pictures.

    Attributes:
        mean: visual tokens of a prompt, mean over the layers.
        stages: (layer, keep) inside the language model.
        merges: OIM steps in the tower.
        grid: visual tokens of a picture that is resized, pooled or cropped to fewer.
        keep: tokens of each picture that a selection before the language model leaves.
    """

    mean: float
    stages: tuple[tuple[int, int], ...] = ()
    merges: tuple[Merge, ...] = ()
    grid: Grid | None = None
    keep: int | None = None


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

    @property
    def side(self) -> Grid:
        """Visual tokens of one picture at ratio 1, as a grid."""
        grid, block = self.problem.grid, self.problem.multiple
        return Grid(grid.h // block.h, grid.w // block.w)


def from_schedule(budget: Budget, schedule: Schedule) -> Plan:
    """The plan of a product's schedule."""
    stages = tuple((prune.layer, prune.keep) for prune in schedule.language)
    visual = budget.problem.visual(schedule)
    return Plan(sum(visual) / len(visual), stages, schedule.vision)


def luvc(options: SolverOptions = DEFAULTS) -> Callable[[Budget], Plan]:
    """LUVC as the product's solver plans it."""
    return lambda budget: from_schedule(budget, solve(budget.problem, budget.ratio, options))


def product(budget: Budget) -> Plan:
    """What luvc-export's --ratio plans: a ratio of FLOPs, at the default number of text tokens."""
    same = {f.name: getattr(budget.problem, f.name) for f in fields(Problem)}
    return from_schedule(budget, solve(Problem(**same), budget.ratio, DEFAULTS))


def oim_only(budget: Budget) -> Plan:
    """OIM steps alone, at most one of each axis: the grid nearest to the budget, then to a square."""
    L = budget.problem.encoder.layers
    grid = budget.problem.grid
    block = budget.problem.multiple

    def steps(axis, length: int, layer: int, multiple: int):
        yield ()
        seen = set()
        for group in range(2, length + 1):
            after = -(-(length - length // group) // multiple) * multiple
            if after < length and after not in seen:
                seen.add(after)
                yield (Merge(layer=layer, axis=axis, group=group),)

    found = []
    for a in steps("width", grid.w, round(L / 4), block.w):
        for b in steps("height", grid.h, round(L / 2), block.h):
            schedule = Schedule(vision=(*a, *b))
            plan, end = from_schedule(budget, schedule), budget.problem.grids(schedule.vision)[-1]
            found.append((abs(plan.mean - budget.mean), abs(end.h - end.w), len(a), plan))
    return min(found, key=lambda f: f[:3])[3]


def before(budget: Budget) -> Plan:
    """One selection before the language model, equally many tokens of each picture."""
    pictures = budget.problem.images
    keep = round(budget.mean / pictures)
    return Plan(keep * pictures, keep=keep)


def smaller_grid(budget: Budget) -> Plan:
    """A smaller, nearly square grid of tokens for each picture."""
    pictures, side = budget.problem.images, budget.side
    wanted = budget.mean / pictures
    sizes = [
        Grid(h, w)
        for h in range(1, side.h + 1)
        for w in range(1, side.w + 1)
        if 2 / 3 <= h / w <= 3 / 2
    ]
    grid = min(sizes, key=lambda g: (abs(g.tokens - wanted), abs(g.h - g.w), g.h))
    return Plan(grid.tokens * pictures, grid=grid)


def drop_all(budget: Budget) -> Plan:
    """All visual tokens up to a layer, none from it on: the layer nearest to the budget."""
    L = budget.layers
    layer = max(1, min(L - 1, round(L / budget.ratio)))
    return Plan(budget.tokens * layer / L, ((layer, 0),))


def cascade(parts: Sequence[float], weights: Sequence[float]) -> Callable[[Budget], Plan]:
    """Stages at parts of the layers that keep V w ** t, with t such that the mean is the budget's.

    Args:
        parts: of the layers, ascending.
        weights: of each stage, in (0, 1).

    The plan raises LuvcError where the layers before the first stage take nearly the whole budget.
    """

    def plan(budget: Budget) -> Plan:
        layers = distinct([part * budget.layers for part in parts], budget.layers)
        found = fit(
            budget, lambda t: stages_of(layers, [budget.tokens * w**t for w in weights]), 64
        )
        least = min(keep for _, keep in found.stages)
        if least < LEAST * budget.tokens:
            raise LuvcError(
                f"{layers[0]} layers of all {budget.tokens} tokens leave {least} a layer for the last ones"
            )
        return found

    return plan


def fit(budget: Budget, stages: Callable[[float], tuple[tuple[int, int], ...]], limit: float):
    """The stages of t in (0, limit] whose mean is nearest to the budget; the mean falls with t."""
    low, high = 0.0, limit
    for _ in range(60):
        middle = (low + high) / 2
        if _mean(budget, stages(middle)) > budget.mean:
            low = middle
        else:
            high = middle
    best = min((stages(low), stages(high)), key=lambda s: abs(_mean(budget, s) - budget.mean))
    return Plan(_mean(budget, best), best)


def stages_of(layers: Sequence[int], keeps: Sequence[float]) -> tuple[tuple[int, int], ...]:
    """(layer, whole number to keep, at least 1)."""
    return tuple((layer, max(1, round(k))) for layer, k in zip(layers, keeps, strict=True))


def distinct(places: Sequence[float], limit: int) -> list[int]:
    """Layers nearest to places, each later than the one before, from 1 on."""
    layers: list[int] = []
    for place in places:
        layers.append(min(limit - 1, max(layers[-1] + 1 if layers else 1, round(place))))
    return layers


def _mean(budget: Budget, stages: Sequence[tuple[int, int]]) -> float:
    language = []
    for layer, keep in stages:
        if keep < (language[-1].keep if language else budget.tokens):
            language.append(Prune(layer=layer, keep=keep))
    visual = Schedule(language=tuple(language)).visual_per_layer(budget.layers, budget.tokens)
    return sum(visual) / len(visual)


def visiondrop(budget: Budget) -> Plan:
    """48, 35, 26 and 19 tokens of an average 32: before the model and at a quarter, half and 3/4."""
    pictures, L = budget.problem.images, budget.layers
    shares = (48 / 32, 35 / 32, 26 / 32, 19 / 32)
    layers = (0, *distinct([L / 4, L / 2, 3 * L / 4], L))

    def stages(t: float) -> tuple[tuple[int, int], ...]:
        keeps = [min(budget.tokens, budget.mean * share / t) for share in shares]
        first = max(1, round(keeps[0] / pictures)) * pictures
        return stages_of(layers, [first, *(min(first, k) for k in keeps[1:])])

    found = fit(budget, stages, 64)
    (_, first), *rest = found.stages
    return replace(found, keep=first // pictures, stages=tuple(rest))
