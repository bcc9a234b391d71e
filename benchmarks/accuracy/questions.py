"""PocketVQA as tensors: every question with its right answer behind it, grouped by pictures.

One pass over prompt and answer decides whether greedy decoding would give exactly that answer: it
would if and only if each answer token is the likeliest one after the right tokens before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context

import numpy as np
import torch
from torch import Tensor

from luvc.tools.pocket.dataset import Record, example

from ..training.packing import IGNORE, turn
from ..training.tokenizer import END, IMAGE_END, IMAGE_START, START


@dataclass(frozen=True)
class Group:
    """Questions about equally many pictures. Letters: B questions, P pictures each, T tail tokens.

    Attributes:
        numbers: place of each question in the split.
        tasks: of each question.
        pixels: uint8 [B, P, height, width, 3].
        head: token ids before the first picture.
        between: token ids between two pictures.
        tail: int64 [B, T], `</img>`, question, answer, right-padded.
        targets: int64 [B, T], the token to predict at each place of the tail, IGNORE elsewhere.
        last: int64 [B], place in the tail of the prompt's last token.
    """

    numbers: tuple[int, ...]
    tasks: tuple[str, ...]
    pixels: np.ndarray
    head: Tensor
    between: Tensor
    tail: Tensor
    targets: Tensor
    last: Tensor

    @property
    def pictures(self) -> int:
        """P."""
        return self.pixels.shape[1]

    def part(self, start: int, stop: int, device: torch.device) -> "Group":
        """Rows start .. stop - 1, with their tokens on a device."""
        return Group(
            self.numbers[start:stop],
            self.tasks[start:stop],
            self.pixels[start:stop],
            self.head.to(device),
            self.between.to(device),
            self.tail[start:stop].to(device),
            self.targets[start:stop].to(device),
            self.last[start:stop].to(device),
        )


def _draw(job: tuple[str, int]) -> tuple[Record, np.ndarray]:
    record = example(*job)
    return replace(record), record.pixels()  # its drawings cannot be sent between processes


def load(split: str, count: int, tokenizer, workers: int = 0) -> list[Group]:
    """Draw the first `count` questions of a split.

    Args:
        split: "validation" or "test".
        count: number of questions.
        tokenizer: of the checkpoint.
        workers: processes that draw; 0 draws here. Start them before the GPU is first used.
    """
    jobs = [(split, index) for index in range(count)]
    if workers:
        with get_context("fork").Pool(workers) as pool:
            drawn = pool.map(_draw, jobs, chunksize=16)
    else:
        drawn = [_draw(job) for job in jobs]
    numbered = list(enumerate(drawn))
    sizes = sorted({len(record.scenes) for record, _ in drawn})
    return [
        _group([entry for entry in numbered if len(entry[1][0].scenes) == size], tokenizer)
        for size in sizes
    ]


def _group(entries: Sequence[tuple[int, tuple[Record, np.ndarray]]], tokenizer) -> Group:
    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    tails = []
    targets = []
    last = []
    for _, (record, _) in entries:
        question = record.questions[0]
        before, answer = map(encode, turn(question.text, question.answer))
        before = encode(f"{IMAGE_END}\n") + before
        tails.append(before + answer)
        targets.append([IGNORE] * (len(before) - 1) + answer + [IGNORE])
        last.append(len(before) - 1)
    longest = max(map(len, tails))

    def pad(rows: list[list[int]], value: int) -> Tensor:
        return torch.tensor([row + [value] * (longest - len(row)) for row in rows])

    return Group(
        numbers=tuple(number for number, _ in entries),
        tasks=tuple(record.questions[0].task for _, (record, _) in entries),
        pixels=np.stack([pixels for _, (_, pixels) in entries]),
        head=torch.tensor(encode(f"{START}user\n{IMAGE_START}")),
        between=torch.tensor(encode(f"{IMAGE_END}\n{IMAGE_START}")),
        tail=pad(tails, tokenizer.convert_tokens_to_ids(END)),
        targets=pad(targets, IGNORE),
        last=torch.tensor(last),
    )
