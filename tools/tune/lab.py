"""Candidates on one model: their plans, what they answer, and what they lose; noted in a journal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np

from ...errors import LuvcError
from ...exporter.config import ExportConfig
from ...exporter.layouts.planned import Planned
from ...exporter.planning.methods import in_tower
from ..eval.answering import BundleAnswerer, askable, batches
from ..eval.items import Item
from ..journal import Journal
from ..workbench import Workbench
from .candidates import Candidate, key_of
from .probe import Loss, Probe


@dataclass(frozen=True)
class Asked:
    """What all plans of a run have in common.

    Attributes:
        options: fields of ExportConfig.
        ratio: that all candidates spend.
        batch: questions at a time.
        longest: tokens of an answer.
    """

    options: dict[str, Any]
    ratio: float
    batch: int
    longest: int

    def config(self, candidate: Candidate | None) -> ExportConfig:
        """An export of a candidate; None is the unmodified model.

        Raises:
            LuvcError: an option is out of range.
        """
        if candidate is None:
            return ExportConfig.make(ratio=1, **self.options)
        own = {} if candidate.options.smaller != "none" else {"solver": candidate.options}
        return ExportConfig.make(method=candidate.method, ratio=self.ratio, **self.options, **own)


class Lab:
    """Questions, and candidates that are measured on them.

    Args:
        bench: the model.
        asked: of all plans.
        questions: in parts that are measured at once; what stands in none is never looked at.
        journal: knows what was found before.
        told: is told a candidate, None where answers are made, and how many more questions are done.
    """

    def __init__(
        self,
        bench: Workbench,
        asked: Asked,
        questions: Sequence[Sequence[Item]],
        journal: Journal,
        told: Callable[[Candidate | None, int], None] = lambda candidate, questions: None,
    ):
        self.bench, self.asked = bench, asked
        self.questions, self.journal = questions, journal
        self.told = told
        self.seconds: dict[str, list[float]] = {}
        self._plans: dict[Candidate | None, tuple[Planned, ...] | LuvcError] = {}

    @property
    def parts(self) -> int:
        """How many parts the questions are in."""
        return len(self.questions)

    @property
    def items(self) -> list[Item]:
        """All questions."""
        return [item for part in self.questions for item in part]

    def plans(self, candidate: Candidate | None) -> tuple[Planned, ...]:
        """The layouts of a candidate.

        Raises:
            LuvcError: it has no plan on this model.
        """
        if candidate not in self._plans:
            try:
                self._plans[candidate] = self.bench.plans(self.asked.config(candidate))
            except LuvcError as error:
                self._plans[candidate] = error
        found = self._plans[candidate]
        if isinstance(found, LuvcError):
            raise found
        return found

    def key(self, candidate: Candidate) -> str:
        """What a candidate does; see `search.Measure`."""
        return key_of(self.plans(candidate))

    def own_tower(self, candidate: Candidate) -> bool:
        """Whether the vision tower runs for it alone."""
        plain = [in_tower(p.layout.schedule) for p in self.plans(None)]
        return any(in_tower(p.layout.schedule) not in plain for p in self.plans(candidate))

    def loss(self, candidate: Candidate, part: int) -> np.ndarray:
        """Mean divergence of each question's answer, nats, float64 [questions]."""
        return self.losses(candidate, part).nats

    def losses(self, candidate: Candidate, part: int) -> Loss:
        """What a candidate loses on a part."""
        name = f"loss {self.key(candidate)} on {self._called(part)}"
        found = self.journal.once(name, lambda: self._measured(candidate, part))
        self.told(candidate, len(self.questions[part]))
        return Loss(np.array(found["nats"]), np.array(found["same"], bool))

    def _measured(self, candidate: Candidate, part: int) -> dict[str, Any]:
        if not self._probe.expected(part):
            self._timed("tower", part, lambda: self._probe.expect(part))
        kind = "own tower" if self.own_tower(candidate) else "plain"
        found = self._timed(kind, part, lambda: self._probe.loss(self.plans(candidate), part))
        return {"nats": found.nats.tolist(), "same": found.same.astype(int).tolist()}

    def _timed(self, kind: str, part: int, run: Callable[[], Any]) -> Any:
        start = perf_counter()
        found = run()
        each = (perf_counter() - start) / max(1, len(self.questions[part]))
        self.seconds.setdefault(kind, []).append(each)
        return found

    def _called(self, part: int) -> str:
        first = self.questions[part][0].id
        return f"{len(self.questions[part])} questions from {first}"

    @cached_property
    def _probe(self) -> Probe:
        answers = {i: tokens for i, (_, tokens) in self.answers(None).items()}
        manifest = self.answerer(None).vlm.manifest
        size = self.asked.batch
        return Probe(self.bench, manifest, self.questions, answers, size)

    def forget_towers(self) -> None:
        """Let go of what other towers than the unmodified one gave."""
        if "_probe" in vars(self):
            self._probe.forget_towers()

    def answerer(self, candidate: Candidate | None) -> BundleAnswerer:
        """Whoever answers under a candidate's plan."""
        config, plans = self.asked.config(candidate), self.plans(candidate)
        return self.bench.answerer(config, plans, self.asked.longest)

    def answers(self, candidate: Candidate | None) -> dict[str, tuple[str, list[int]]]:
        """Text and tokens that it answers greedily, by the questions' ids.

        Raises:
            LuvcError: a question with a number of pictures that no layout takes.
        """
        called = "unmodified" if candidate is None else self.key(candidate)
        names = {item.id: f"answer {called} to {item.id}" for item in self.items}
        rest = [item for item in self.items if names[item.id] not in self.journal.known]
        if rest:
            self._answer(candidate, rest, names)
        return {id: tuple(self.journal.known[name]) for id, name in names.items()}

    def _answer(
        self, candidate: Candidate | None, rest: Sequence[Item], names: dict[str, str]
    ) -> None:
        answerer = self.answerer(candidate)
        if len(askable(answerer, rest)) < len(rest):
            counts = sorted({len(item.images) for item in rest})
            raise LuvcError(
                f"the questions have {', '.join(map(str, counts))} images: give --images for each number"
            )
        start = perf_counter()
        for batch in batches(answerer, rest, self.asked.batch):
            found = answerer.answer(batch)
            self.journal.keep_all(
                {
                    names[i.id]: (p.text, list(p.tokens))
                    for i, p in zip(batch.items, found, strict=True)
                }
            )
            self.told(None, len(batch.items))
        self.seconds.setdefault("answers", []).append((perf_counter() - start) / len(rest))
