"""Token sequences: the pictures once, then many questions about them.

Each question sees the pictures and itself but no other question, and its positions start where the
pictures end: what the model learns is exactly the single-question prompt. One record in four is
packed as a chat instead, where every turn sees the turns before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from transformers import PreTrainedTokenizerFast

from luvc.tools.pocket.scene import Question

from .checkpoint import VISUAL_TOKENS
from .tokenizer import END, IMAGE, IMAGE_END, IMAGE_START, START

PREFIX = 0
"""Segment of the tokens that every question sees."""
PADDING = -1
IGNORE = -100
"""Target of tokens that are not learnt."""
CHAT_EVERY = 4


def turn(question: str, answer: str) -> tuple[str, str]:
    """What stands before an answer, after the pictures, and the answer with its end."""
    return f"{question}{END}\n{START}assistant\n", f"{answer}{END}"


@dataclass(frozen=True)
class Packed:
    """Arrays of one sequence, each [length]: token ids, segments, positions, targets.

    `targets[i]` is the token to predict at i (already shifted), IGNORE where nothing is learnt.
    """

    ids: np.ndarray
    segments: np.ndarray
    positions: np.ndarray
    targets: np.ndarray


class Packer:
    """Turns questions into sequences of a fixed length."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.tokenizer = tokenizer
        self.pad = tokenizer.pad_token_id
        self.encode = lru_cache(maxsize=20_000)(self._encode)

    def _encode(self, text: str) -> tuple[int, ...]:
        backend = self.tokenizer.backend_tokenizer
        return tuple(backend.encode(text, add_special_tokens=False).ids)

    def prefix(self, pictures: int) -> tuple[int, ...]:
        """Tokens up to the first question, for a number of pictures."""
        picture = f"{IMAGE_START}{IMAGE * VISUAL_TOKENS}{IMAGE_END}\n"
        return self.encode(f"{START}user\n{picture * pictures}")

    def pack(
        self, pictures: int, questions: tuple[Question, ...], length: int, chat: bool = False
    ) -> Packed:
        """Pack as many questions as fit.

        Args:
            pictures: number of pictures in the prompt.
            questions: what to ask, in order.
            length: tokens of the sequence, padded if fewer.
            chat: whether later questions see the earlier ones.
        """
        prefix = self.prefix(pictures)
        ids, segments = list(prefix), [PREFIX] * len(prefix)
        positions, targets = list(range(len(prefix))), [IGNORE] * len(prefix)
        next_turn = self.encode(f"\n{START}user\n")
        for number, question in enumerate(questions, 1):
            before, answer = map(self.encode, turn(question.text, question.answer))
            if chat and number > 1:
                before = next_turn + before
            new = before + answer
            if len(ids) + len(new) > length:
                continue
            start = len(ids) if chat else len(prefix)
            ids += new
            segments += [1 if chat else number] * len(new)
            positions += range(start, start + len(new))
            targets += [IGNORE] * (len(before) - 1) + list(answer) + [IGNORE]
        spare = length - len(ids)
        return Packed(
            np.array(ids + [self.pad] * spare, np.int16),
            np.array(segments + [PADDING] * spare, np.int16),
            np.array(positions + [0] * spare, np.int16),
            np.array(targets + [IGNORE] * spare, np.int16),
        )
