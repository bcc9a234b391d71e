"""The study of one split: right or wrong for every question, method and ratio."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from luvc.engines.backends.base import PrefillFeed
from luvc.engines.bundle.layout import Layout
from luvc.engines.bundle.schedule import Schedule
from luvc.errors import LuvcError
from luvc.exporter.check.teacher_forcing import AnswerRunner
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.layouts.downsample import smaller_pictures
from luvc.exporter.layouts.planned import image_geometry, layout_of, problem_of
from luvc.exporter.planning.methods import in_tower

from .methods import SEEDS, Method
from .plans import Budget, TokenProblem, unmodified
from .questions import Item, Prompts

RATIOS = (1.5, 2.0, 3.0, 4.0)
CONTROL = Method("ratio 1", "full", "the unmodified model", unmodified)


class Study:
    """A checkpoint and a split's questions on a device, run through the product's graphs in float32.

    Args:
        model: of the family, from Hugging Face; it is converted in place.
        family: of its checkpoint.
        items: of `questions.load`.
        device: where to run.
        batch: questions at a time.
        size: (height, width) that the pictures are shown in; None: the family's smallest usual one.

    Raises:
        LuvcError: the family's processor cannot give this size.
    """

    def __init__(
        self,
        model: Any,
        family: Family,
        items: Sequence[Item],
        device: str | torch.device = "cpu",
        batch: int = 400,
        size: tuple[int, int] | None = None,
    ):
        self.family, self.count = family, len(items)
        generation = getattr(model, "generation_config", None)
        self.prompts = Prompts(family, getattr(generation, "eos_token_id", None))
        self._tasks = {item.number: item.task for item in items}
        self._geometries, self.problems = {}, {}
        self.parts: list[tuple[Item, ...]] = []
        for P in sorted({len(item.pictures) for item in items}):
            of_count = [item for item in items if len(item.pictures) == P]
            self._geometries[P] = found = image_geometry(family, size, P)
            self.problems[P] = TokenProblem.of(problem_of(family, found, 0))
            starts = range(0, len(of_count), batch)
            self.parts += [tuple(of_count[start : start + batch]) for start in starts]
        self.answers = [self.prompts.answers(part) for part in self.parts]
        self._ids: dict[tuple, list[list[int]]] = {}
        self._pixels: dict[tuple, np.ndarray] = {}
        self._embeds: dict[tuple, np.ndarray] = {}
        self.runner = AnswerRunner(model, family, self._longest(), device)

    @property
    def tasks(self) -> np.ndarray:
        """The task of every question, in order, str [questions]."""
        return np.array([self._tasks[number] for number in range(self.count)])

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) that the pictures are shown in."""
        return next(iter(self._geometries.values())).size

    @property
    def span(self) -> int:
        """Visual tokens of a picture at ratio 1."""
        problem = next(iter(self.problems.values()))
        return problem.visual_tokens(()) // problem.images

    def schedules(self, method: Method, ratio: float, seed: int = 0) -> dict[int, Schedule]:
        """What a method does with prompts about each number of pictures.

        Raises:
            LuvcError: the method has no schedule at this ratio.
        """
        return {
            P: method.schedule(Budget(problem, ratio), seed) for P, problem in self.problems.items()
        }

    def layouts(self, method: Method, ratio: float, seed: int = 0) -> dict[int, Layout]:
        """What a method makes of prompts about each number of pictures.

        Raises:
            LuvcError: the method has no plan at this ratio, or the family cannot run it.
        """
        if method.smaller_picture:
            return {P: self._of_smaller_pictures(P, ratio) for P in self.problems}
        schedules = self.schedules(method, ratio, seed)
        return {P: self.layout(P, schedule) for P, schedule in schedules.items()}

    def mean(self, layout: Layout) -> float:
        """Visual tokens of a prompt, mean over the language model's layers."""
        L, V = self.problems[1].decoder.layers, layout.visual_tokens
        return sum(layout.schedule.visual_per_layer(L, V)) / L

    def right(self, layouts: dict[int, Layout]) -> np.ndarray:
        """Whether each question of the split is answered exactly, bool [questions].

        Args:
            layouts: of prompts about each number of pictures.
        """
        right = np.zeros(self.count, bool)
        for number, part in enumerate(self.parts):
            layout, answers = layouts[len(part[0].pictures)], self.answers[number]
            places = 1 + max(map(len, answers))
            logits = self.runner.logits(layout, self.feed(number, layout), places)
            best = logits.argmax(-1).numpy(force=True)
            right[[item.number for item in part]] = self.prompts.right(best, answers)
        return right

    def layout(self, pictures: int, schedule: Schedule) -> Layout:
        """The layout of prompts about so many pictures under a schedule.

        Raises:
            LuvcError: the family cannot run it.
        """
        if schedule.match and schedule.lasting and self.family.adapter.packs_merged:
            kind = self.family.config.model_type
            raise LuvcError(f"{kind} packs tiles by their grid, so that OIM must give it back")
        geometry, problem = self._geometries[pictures], self.problems[pictures]
        return layout_of(self.family, geometry, problem, schedule)

    def _of_smaller_pictures(self, pictures: int, ratio: float) -> Layout:
        """The layout of the largest pictures that bring at most V / ratio visual tokens."""
        full, most = self._geometries[pictures], self.problems[pictures].visual_tokens(()) / ratio
        for geometry, problem in smaller_pictures(self.family, full, 0):
            if problem.visual_tokens(()) <= most:
                return layout_of(self.family, geometry, problem, Schedule())
        kind = self.family.config.model_type
        raise LuvcError(
            f"{kind} takes no smaller picture as it is that brings at most {most:g} visual tokens"
        )

    def feed(self, number: int, layout: Layout) -> PrefillFeed:
        """Prompts and right answers of a part, and what the tower makes of its pictures."""
        ids, embeds = self.ids(number, layout), self.embeds(number, layout)
        return self.runner.feed(layout, ids, self.answers[number], embeds)

    def ids(self, number: int, layout: Layout) -> list[list[int]]:
        """Prompts of a part, made once for layouts with as many tokens a picture."""
        key = (number, layout.expansion)
        if key not in self._ids:
            self._ids[key] = self.prompts.ids(layout, self.parts[number])
        return self._ids[key]

    def pixels(self, number: int, layout: Layout) -> np.ndarray:
        """Pixels of a part's pictures, made once for layouts that show the tower as much."""
        key = (number, layout.image_size, layout.pixel_shape, str(layout.processor_options))
        if key not in self._pixels:
            self._pixels[key] = self.prompts.pixels(layout, self.parts[number])
        return self._pixels[key]

    def embeds(self, number: int, layout: Layout) -> np.ndarray:
        """Visual embeddings [B, V, D] of a part, made once for schedules with the same tower."""
        key = (number, in_tower(layout.schedule))
        if key not in self._embeds:
            pixels, batch = self.pixels(number, layout), len(self.parts[number])
            self._embeds[key] = self.runner.embeds(layout, pixels, batch)
        return self._embeds[key]

    def forget(self) -> None:
        """Let go of the graphs and tower runs of a ratio; those of ratio 1 are kept."""
        self.runner.forget()
        plain = in_tower(Schedule())
        self._embeds = {key: value for key, value in self._embeds.items() if key[1] == plain}

    def _longest(self) -> int:
        """Text tokens of the longest prompt and answer."""
        longest = 0
        for number, part in enumerate(self.parts):
            layout = self.layout(len(part[0].pictures), Schedule())
            both = zip(self.ids(number, layout), self.answers[number], strict=True)
            longest = max(longest, *(len(p) + len(a) - layout.visual_tokens for p, a in both))
        return longest


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
        layouts = study.layouts(method, ratio, seed)
        right = study.right(layouts)
    except LuvcError as error:
        return {"method": method.name, "ratio": ratio, "seed": seed, "why": str(error)}
    return {
        "method": method.name,
        "kind": method.kind,
        "note": method.note,
        "ratio": ratio,
        "seed": seed,
        "mean": {str(P): study.mean(layout) for P, layout in layouts.items()},
        "schedule": layouts[min(layouts)].schedule.model_dump(mode="json"),
        "right": np.packbits(right).tobytes().hex(),
    }
