"""The study of one split: right or wrong for every question, method and ratio."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch

from luvc.errors import LuvcError

from .draws import Draws
from .language import After, Decoder, LayerInput, Rule
from .methods import SEEDS, Method
from .plans import Budget, Plan, token_problem
from .questions import Group
from .selections import values_of
from .vision import Seen, Tower, normalise, resize

RATIOS = (1.3, 1.5, 2.0, 3.0, 4.0)
CONTROL = Method("ratio 1", "full", "the unmodified model", lambda b: Plan(b.tokens))


class Study:
    """A checkpoint and a split's questions on a device.

    Args:
        model: InternVLForConditionalGeneration.
        groups: of `questions.load`.
        device: where to run.
        batch: questions at a time.
    """

    def __init__(self, model, groups: Sequence[Group], device: torch.device, batch: int = 400):
        self.model = model.to(device).float().eval()
        self.device = device
        self.batch = batch
        self.tower, self.decoder = Tower(self.model), Decoder(self.model)
        self.problems = {g.pictures: token_problem(model.config, g.pictures) for g in groups}
        problem = next(iter(self.problems.values()))
        self.span = problem.visual_tokens(()) // problem.images
        self.parts = [
            group.part(start, start + batch, device)
            for group in groups
            for start in range(0, len(group.numbers), batch)
        ]
        self.count = sum(len(part.numbers) for part in self.parts)
        self._looked: dict[int, Seen] = {}
        self._towered: dict[tuple, torch.Tensor] = {}

    @property
    def tasks(self) -> np.ndarray:
        """The task of every question, in order, str [questions]."""
        found = {n: t for part in self.parts for n, t in zip(part.numbers, part.tasks, strict=True)}
        return np.array([found[number] for number in range(self.count)])

    @torch.inference_mode()
    def right(self, method: Method, ratio: float, seed: int = 0) -> np.ndarray:
        """Whether each question of the split is answered exactly, bool [questions].

        Raises:
            LuvcError: the method has no plan at this ratio.
        """
        plans = {P: method.plan(Budget(problem, ratio)) for P, problem in self.problems.items()}
        right = np.zeros(self.count, bool)
        for number, part in enumerate(self.parts):
            draws = Draws(seed, part.numbers)
            entering = self.start(method, plans[part.pictures], number, draws)
            right[list(part.numbers)] = self._finish(
                method, plans[part.pictures], part, entering, draws
            )
        return right

    def start(self, method: Method, plan: Plan, number: int, draws: Draws) -> LayerInput:
        """The sequence of a part before layer 0 under a plan."""
        part = self.parts[number]
        B, P = part.pixels.shape[:2]
        places = None
        if plan.keep is not None and method.select is not None:
            seen = self.look(number)
            kept = method.select(draws)(seen, plan.keep)
            tokens = values_of(seen, kept)
            places = None if method.renumber else kept.ordinals.unflatten(0, (B, P))
        elif plan.grid is not None and method.reduce is not None:
            tokens = method.reduce(self.look(number), plan.grid.h, plan.grid.w)
        elif plan.merges or (plan.grid is not None and method.resize):
            tokens = self._tower(number, plan, method.match)
        else:
            tokens = self.look(number).tokens
        return self.decoder.start(part, tokens.unflatten(0, (B, P)), places, self.span)

    def look(self, number: int) -> Seen:
        """Visual tokens and attention of a part at ratio 1, computed once."""
        if number not in self._looked:
            self._looked[number] = self.tower.look(self._pixels(number))
        return self._looked[number]

    def _pixels(self, number: int) -> torch.Tensor:
        pixels = torch.from_numpy(self.parts[number].pixels).to(self.device)
        return normalise(pixels.flatten(0, 1))

    def _tower(self, number: int, plan: Plan, match: bool) -> torch.Tensor:
        """Tokens of a tower run with merges or smaller pictures; `forget` empties the store."""
        key = (number, plan.merges, plan.grid, match)
        if key not in self._towered:
            pixels = self._pixels(number)
            if plan.grid is not None:
                pixels = resize(pixels, plan.grid, self.tower.patch * self.tower.block.h)
            self._towered[key] = self.tower.run(pixels, plan.merges, match)[0]
        return self._towered[key]

    def forget(self) -> None:
        """Let go of the tower runs of a ratio."""
        self._towered.clear()

    def _finish(
        self, method: Method, plan: Plan, part: Group, entering: LayerInput, draws: Draws
    ) -> np.ndarray:
        rules: dict[int, tuple[Rule, int]] = {}
        after: After | None = None
        if plan.stages:
            assert method.rule is not None, f"{method.name} prunes without a rule"
            made = method.rule(draws, part.pictures)
            rule, after = made if isinstance(made, tuple) else (made, None)
            rules = {layer: (rule, keep) for layer, keep in plan.stages}
        hidden = self.decoder.run(entering, rules, method.renumber, after)
        return self.decoder.right(hidden, part).cpu().numpy()


Once = Callable[[str, Callable[[], dict]], dict]
"""Gives the result of a name, made only if it is not known."""


def rows(
    study: Study, methods: Sequence[Method], ratios: Sequence[float], once: Once
) -> Iterator[dict]:
    """Ratio 1, then every method at every ratio; what has no plan there says why."""
    for ratio in (1.0, *ratios):
        for method in methods if ratio > 1 else (CONTROL,):
            for seed in range(SEEDS if method.drawn else 1):
                name = f"{method.name} at {ratio:g}, {seed}"
                yield once(name, partial(entry, study, method, ratio, seed))
        study.forget()


def entry(study: Study, method: Method, ratio: float, seed: int) -> dict:
    """One line of the result; `right` holds a bit a question, in order, as hexadecimal."""
    try:
        right = study.right(method, ratio, seed)
    except LuvcError as error:
        return {"method": method.name, "ratio": ratio, "seed": seed, "why": str(error)}
    plans = {P: method.plan(Budget(problem, ratio)) for P, problem in study.problems.items()}
    one = plans[min(plans)]
    return {
        "method": method.name,
        "kind": method.kind,
        "note": method.note,
        "ratio": ratio,
        "seed": seed,
        "mean": {str(P): plan.mean for P, plan in plans.items()},
        "stages": one.stages,
        "merges": [merge.model_dump() for merge in one.merges],
        "grid": [one.grid.h, one.grid.w] if one.grid else None,
        "keep": one.keep,
        "right": np.packbits(right).tobytes().hex(),
    }
