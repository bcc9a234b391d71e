"""Questions with known answers: PocketVQA, or a JSONL file of one's own."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from ... import strict_json
from ...errors import LuvcError
from ...strict_json import Words


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        id: unique within its data.
        task: what it is reported under.
        question: the user's text.
        answers: any of them is right.
        images: paths or PIL images, in order.
    """

    id: str
    task: str
    question: str
    answers: tuple[str, ...]
    images: tuple[Any, ...] = field(repr=False)

    @property
    def messages(self) -> list[dict]:
        """A conversation of one turn."""
        parts = [{"type": "image", "image": image} for image in self.images]
        return [{"role": "user", "content": [*parts, {"type": "text", "text": self.question}]}]


def pocket_items(
    split: str, limit: int | None, size: tuple[int, int] | None = None
) -> Iterable[Item]:
    """PocketVQA's questions of a split, drawn as they are asked for.

    Args:
        split: "test" or "validation".
        limit: first questions only.
        size: (height, width) that a model sees them in; larger ones are drawn finer.

    Raises:
        LuvcError: unknown split, or scikit-image is not installed.
    """
    from ..pocket.dataset import SPLITS, TEST_QUESTIONS, example, scale_for

    if split not in SPLITS:
        raise LuvcError(f"--split {split} does not exist; choose one of {', '.join(SPLITS)}")
    scale = scale_for(size) if size else 1
    for index in range(limit or TEST_QUESTIONS):
        record = example(split, index, scale)
        q = record.questions[0]
        yield Item(f"{split}-{index}", q.task, q.text, (q.answer,), record.pictures)


class _Line(BaseModel):
    """One line of a JSONL file."""

    model_config = ConfigDict(extra="ignore")

    question: Words
    answer: Words | list[Words] | None = None
    image: Words | None = None
    images: list[Words] | None = None
    task: Words = "all"
    id: Words | int | None = None

    @model_validator(mode="after")
    def _says_its_images(self) -> "_Line":
        if not self.image and self.images is None:
            raise ValueError("needs 'image' or 'images' ([] for a question without a picture)")
        return self


def read_jsonl(path: Path, limit: int | None, needs_answers: bool = True) -> list[Item]:
    """Lines {"image" or "images", "question", "answer", "task"?, "id"?}; paths are the file's own.

    "answer" is a text or a list of texts of which any is right.

    Raises:
        LuvcError: unreadable, or a line is not such an object; names the line.
    """
    items: list[Item] = []
    for number, data in strict_json.lines(path):
        if limit is not None and len(items) == limit:
            break
        items.append(_item(path, number, data, needs_answers))
    if not items:
        raise LuvcError(f"--data {path} holds no questions")
    if len({item.id for item in items}) < len(items):
        raise LuvcError(f"--data {path}: ids are not unique; give each line its own or none")
    return items


def _item(path: Path, number: int, data: Any, needs_answers: bool) -> Item:
    try:
        line = _Line.model_validate(data)
    except ValidationError as e:
        raise LuvcError(
            f"{path}, line {number}: {strict_json.first_error(e)}; mend the line"
        ) from e
    images = [path.parent / name for name in line.images or ([line.image] if line.image else [])]
    for image in images:
        if not os.path.isfile(image):
            raise LuvcError(
                f"{path}, line {number}: there is no image {str(image)!r:.200}; paths begin at the "
                "file's folder"
            )
    if line.answer is None and needs_answers:
        raise LuvcError(f"{path}, line {number}: answer: Field required; mend the line")
    answers = (line.answer,) if isinstance(line.answer, str) else tuple(line.answer or ())
    name = str(number if line.id is None else line.id)
    return Item(name, line.task, line.question, answers, tuple(images))


def asked_of_a_model(
    data: Path | None, limit: int | None, size: tuple[int, int] | None = None
) -> list[Item]:
    """Questions to compare plans of one model on: all about pictures, with answers to all or to none.

    Args:
        data: JSONL file; None for PocketVQA's validation split, 200 of it unless a limit is given.
        limit: first questions only.
        size: (height, width) that the model sees pictures in.

    Raises:
        LuvcError: unreadable, a question without a picture, or answers to some alone.
    """
    items = read_jsonl(data, limit, needs_answers=False) if data else None
    items = items or list(pocket_items("validation", limit or 200, size))
    with_answers = [item for item in items if item.answers]
    if 0 < len(with_answers) < len(items):
        raise LuvcError(
            f"{len(with_answers)} of {len(items)} questions have an answer: give one to each, or to none"
        )
    if not all(item.images for item in items):
        raise LuvcError(
            "a question has no picture, so that there is nothing to compress: leave it out"
        )
    return items


def is_right(prediction: str, answers: tuple[str, ...], rule: str) -> bool:
    """Whether a prediction is one of the answers.

    Args:
        prediction: the model's text.
        answers: the right ones.
        rule: "exact" compares without surrounding space; "loose" also without case, repeated space
            and a final full stop.
    """

    def plain(text: str) -> str:
        text = text.strip()
        return text if rule == "exact" else " ".join(text.casefold().split()).rstrip(".")

    return plain(prediction) in {plain(answer) for answer in answers}


def rule_of(match: str | None, data: Path | None) -> str:
    """How answers are compared; see `is_right`.

    Raises:
        LuvcError: there is no such rule.
    """
    rule = match or ("loose" if data else "exact")
    if rule not in ("exact", "loose"):
        raise LuvcError(f"--match {rule} is not one of exact, loose")
    return rule
