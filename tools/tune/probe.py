"""Plans asked about the unmodified model's answers, all tokens of an answer in one pass.

Letters: A tokens of an answer, B questions at a time, V visual tokens, D width.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...engines.bundle.layout import Layout
from ...engines.bundle.manifest import Manifest
from ...engines.prompt.processing import Processor, Prompt, open_image
from ...exporter.check.memory import free_memory
from ...exporter.check.teacher_forcing import AnswerRunner
from ...exporter.layouts.planned import Planned
from ...exporter.planning.methods import in_tower
from ..eval.items import Item
from ..workbench import Workbench
from .divergence import Expected

SHARE = 0.25
"""Of the free memory that the towers' outputs may take."""


@dataclass(frozen=True)
class Loss:
    """What a plan loses on questions, in their order.

    Attributes:
        nats: mean divergence of an answer's tokens, [questions].
        same: whether every token of the answer is still the likeliest, bool [questions].
    """

    nats: np.ndarray
    same: np.ndarray


class Probe:
    """Questions, the unmodified model's answers to them, and the model.

    Args:
        bench: the model.
        manifest: of the unmodified model.
        parts: questions; each part is measured at once.
        answers: the unmodified model's, token ids by the questions' ids.
        batch: B at most.
    """

    def __init__(
        self,
        bench: Workbench,
        manifest: Manifest,
        parts: Sequence[Sequence[Item]],
        answers: Mapping[str, Sequence[int]],
        batch: int,
    ):
        self.bench, self.manifest = bench, manifest
        self.parts = parts
        self.answers = {
            i: _fed(a, bench.family.language.image_token_id) for i, a in answers.items()
        }
        self._plain, self._batch = {x.images: x for x in manifest.layouts}, batch
        self._prompts: dict[tuple, list[list[int]]] = {}
        self._towers: dict[tuple, np.ndarray] = {}
        self._expected: dict[str, Expected] = {}
        self._room = SHARE * free_memory()
        self.runner = AnswerRunner(bench.model, bench.family, self._longest())

    def loss(self, plans: Sequence[Planned], part: int) -> Loss:
        """What plans lose on a part."""
        layouts = {planned.layout.images: planned.layout for planned in plans}
        self.expect(part)
        found: dict[str, tuple[float, bool]] = {}
        for key, items in self._batches(part):
            layout = layouts[len(items[0].images)]
            for item, logits in zip(items, self._logits(layout, key, items), strict=True):
                found[item.id] = self._compare(item, logits)
        self.runner.forget()
        nats, same = zip(*(found[item.id] for item in self.parts[part]), strict=True)
        return Loss(np.array(nats), np.array(same))

    def forget_towers(self) -> None:
        """Let go of what towers other than the unmodified one gave."""
        own = {layout.image_size for layout in self._plain.values()}
        plain = [in_tower(layout.schedule) for layout in self._plain.values()]
        self._towers = {k: v for k, v in self._towers.items() if k[1] in own and k[2] in plain}

    def _batches(self, part: int) -> Iterator[tuple[tuple[int, int, int], list[Item]]]:
        """Questions with equally many pictures, and a name."""
        for count in self._plain:
            items = [item for item in self.parts[part] if len(item.images) == count]
            for start in range(0, len(items), self._batch):
                yield (part, count, start), items[start : start + self._batch]

    def expected(self, part: int) -> bool:
        """Whether it has the unmodified model's probabilities on a part, which all plans are held to."""
        return all(item.id in self._expected for item in self.parts[part])

    def expect(self, part: int) -> None:
        """Have them."""
        for key, items in self._batches(part):
            if items[0].id not in self._expected:
                logits = self._logits(self._plain[key[1]], key, items)
                for item, rows in zip(items, logits, strict=True):
                    self._expected[item.id] = Expected.of(rows[: len(self.answers[item.id])])

    def _compare(self, item: Item, logits: torch.Tensor) -> tuple[float, bool]:
        answer = self.answers[item.id]
        logits = logits[: len(answer)]
        nats = self._expected[item.id].divergence(logits).mean()
        return float(nats), bool((logits.argmax(-1) == torch.tensor(answer)).all())

    def _logits(self, layout: Layout, key: tuple, items: Sequence[Item]) -> torch.Tensor:
        """float32 [B, A, vocabulary], of the longest answer."""
        answers = [self.answers[item.id] for item in items]
        prompts, embeds = self._ids(layout, key, items), self._embeds(layout, key, items)
        feed = self.runner.feed(layout, prompts, [a[:-1] for a in answers], embeds)
        return self.runner.logits(layout, feed, max(map(len, answers)))

    def _ids(self, layout: Layout, key: tuple, items: Sequence[Item]) -> list[list[int]]:
        """Prompts, made once for layouts with as many tokens a picture."""
        name = (key, layout.expansion)
        if name not in self._prompts:
            processor = self._processor(layout)
            self._prompts[name] = [_prompt(processor, item).input_ids for item in items]
        return self._prompts[name]

    def _embeds(self, layout: Layout, key: tuple, items: Sequence[Item]) -> np.ndarray:
        """Visual embeddings [B, V, D], made once for plans with the same tower while there is room."""
        name = (key, layout.image_size, in_tower(layout.schedule))
        if name in self._towers:
            return self._towers[name]
        processor = self._processor(layout)
        pixels = [processor.pixels(_prompt(processor, item)) for item in items]
        found = self.runner.embeds(layout, np.concatenate(pixels), len(items))
        if sum(x.nbytes for x in self._towers.values()) + found.nbytes <= self._room:
            self._towers[name] = found
        return found

    def _processor(self, layout: Layout) -> Processor:
        return self.bench.processor(self.manifest.model_copy(update={"layouts": (layout,)}))

    def _longest(self) -> int:
        """Text tokens of the longest prompt and answer."""
        longest = 1
        for part in range(len(self.parts)):
            for key, items in self._batches(part):
                layout = self._plain[key[1]]
                for item, ids in zip(items, self._ids(layout, key, items), strict=True):
                    both = len(ids) - layout.visual_tokens + len(self.answers[item.id])
                    longest = max(longest, both)
        return longest


def _prompt(processor: Processor, item: Item) -> Prompt:
    opened = replace(item, images=tuple(open_image(image) for image in item.images))
    return processor.prompt(opened.messages)


def _fed(answer: Sequence[int], image_token: int) -> list[int]:
    """The answer up to a token that would be taken for a picture."""
    cut = answer.index(image_token) + 1 if image_token in answer else len(answer)
    return list(answer[:cut])
