"""PocketVQA's questions of a split, and how the product's runtime puts them to a checkpoint of any family.

No bundle is needed. Letters: B questions, P pictures each, S prompt length, A places of an answer and its
end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context

import numpy as np

from luvc.engines.bundle.folder import Bundle
from luvc.engines.bundle.layout import Layout
from luvc.engines.bundle.manifest import Manifest
from luvc.engines.prompt.chat_template import ChatTemplate
from luvc.engines.prompt.pixels import pixel_values
from luvc.engines.prompt.processing import Processor, open_image
from luvc.engines.stopping import end_tokens
from luvc.exporter.checkpoint.family import Family
from luvc.tools.pocket.dataset import example

LONGEST = 4096
"""Text tokens of a prompt; caches are made for the longest there is."""
IGNORE = -100
"""Target of places behind the answer."""
END = -1
"""Target of the place where the answer must end."""


@dataclass(frozen=True)
class Item:
    """A question.

    Attributes:
        number: its place in the split.
        task: of PocketVQA.
        pictures: uint8 [P, height, width, 3].
        question: its text.
        answer: the only right one.
    """

    number: int
    task: str
    pictures: np.ndarray
    question: str
    answer: str


def load(split: str, count: int, workers: int = 0, scale: int = 1) -> list[Item]:
    """Draw the first `count` questions of a split.

    Args:
        split: "validation" or "test".
        count: number of questions.
        workers: processes that draw; 0 draws here. Start them before the GPU is first used.
        scale: of the pictures.
    """
    jobs = [(split, index, scale) for index in range(count)]
    if not workers:
        return [_draw(job) for job in jobs]
    with get_context("fork").Pool(workers) as pool:
        return pool.map(_draw, jobs, chunksize=16)


def _draw(job: tuple[str, int, int]) -> Item:
    record = example(*job)
    asked = record.questions[0]
    return Item(job[1], asked.task, record.pixels(), asked.text, asked.answer)


class Prompts:
    """Prompts, pixels and answers of a family's checkpoint.

    Args:
        family: of the checkpoint.
        ends: its generation config's tokens that end an answer, if it has any.
    """

    def __init__(self, family: Family, ends: int | Sequence[int] | None = None):
        self.family = family
        text = family.config.text_config.eos_token_id
        found = end_tokens(ends, text, family.tokenizer.eos_token_id)
        self.ends = np.atleast_1d(np.array([] if found is None else found, np.int64))

    @cached_property
    def _template(self) -> ChatTemplate:
        template = ChatTemplate(self.family.tokenizer)
        template.check()
        return template

    def processor(self, layout: Layout) -> Processor:
        """The product's processor for a layout."""
        family = self.family
        manifest = Manifest(
            created="",
            model=family.model,
            family=family.config.model_type,
            dtype="float32",
            language=family.language,
            layouts=(layout,),
            text_capacity=LONGEST,
            reference_text=0,
            parameters=0,
        )
        made = Processor(Bundle(family.folder, manifest))
        made.tokenizer, made.image_processor = family.tokenizer, family.image_processor
        made.template = self._template
        return made

    def ids(self, layout: Layout, items: Sequence[Item]) -> list[list[int]]:
        """Token ids [S] of each prompt, its end being where the answer begins."""
        processor = self.processor(layout)
        return [processor.prompt(_messages(item)).input_ids for item in items]

    def pixels(self, layout: Layout, items: Sequence[Item]) -> np.ndarray:
        """What the vision graph takes of all pictures in order, float32 [B * N, ...]."""
        made = [
            pixel_values(self.family.image_processor, [open_image(p) for p in i.pictures], layout)
            for i in items
        ]
        return np.concatenate(made)

    def answers(self, items: Sequence[Item]) -> list[list[int]]:
        """Tokens of each right answer by itself, without its end."""
        tokenizer = self.family.tokenizer
        return [tokenizer(i.answer, add_special_tokens=False)["input_ids"] for i in items]

    def right(self, best: np.ndarray, answers: Sequence[Sequence[int]]) -> np.ndarray:
        """Whether greedy decoding gives exactly the answers, bool [B].

        It does if and only if each token of the answer is the likeliest behind the right ones before it,
        and a token that ends answers the likeliest behind them all.

        Args:
            best: the likeliest token behind the prompt and behind each token of the answer, [B, A].
            answers: B of them.
        """
        wanted = np.full_like(best, IGNORE)
        for row, answer in zip(wanted, answers, strict=True):
            row[: len(answer) + 1] = [*answer, END]
        ended = (wanted == END) & np.isin(best, self.ends)
        return ((best == wanted) | (wanted == IGNORE) | ended).all(1)


def _messages(item: Item) -> list[dict]:
    shown = [{"type": "image", "image": picture} for picture in item.pictures]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": item.question}]}]
