"""Questions in a JSONL file: about pictures or none, with right answers or without."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from .. import strict_json
from ..errors import LuvcError
from ..strict_json import Words


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


class _Line(BaseModel):
    """One line of a JSONL file."""

    model_config = ConfigDict(extra="ignore")

    question: Words
    answer: Words | list[Words] | None = None
    image: Words | None = None
    images: list[Words] | None = None
    task: Words = "all"
    id: Words | int | None = None
    video: Any = None

    @model_validator(mode="after")
    def _says_its_images(self) -> "_Line":
        if self.video is not None:
            raise ValueError("videos are not read here: give frames as images")
        if self.image and self.images is not None:
            raise ValueError("has both 'image' and 'images': give one")
        if self.answer == []:
            raise ValueError("an empty list of answers: leave it out, or give one")
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
        raise LuvcError(f"{path} holds no questions: give a line for each")
    if len({item.id for item in items}) < len(items):
        raise LuvcError(f"{path}: ids are not unique; give each line its own or none")
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
