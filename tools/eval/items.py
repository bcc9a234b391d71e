"""Questions with known answers: PocketVQA, or a JSONL file of one's own."""

from collections.abc import Iterable
from pathlib import Path

from ...engines.questions import Item, read_jsonl
from ...errors import LuvcError

__all__ = ["Item", "asked_of_a_model", "is_right", "pocket_items", "read_jsonl", "rule_of"]


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
