"""Questions to tune on and questions to report on: no picture is in both."""

import itertools
import random
from collections.abc import Sequence

from ...errors import LuvcError
from ..eval.items import Item

PARTS = 3
"""Of the questions to tune on: candidates that are surely worse leave behind each."""
HELD_OUT = 1 / 3
LEAST = 9
SEED = 0


def split(items: Sequence[Item]) -> tuple[list[list[Item]], list[Item]]:
    """Parts to tune on, and questions held out, drawn by a fixed seed.

    Questions that share a picture stay together.

    Raises:
        LuvcError: too few questions, or nearly all about the same pictures.
    """
    if len(items) < LEAST:
        raise LuvcError(
            f"{len(items)} questions are too few to tune on some and report on others: give at least "
            f"{LEAST}, and a few hundred to be sure of anything"
        )
    groups = _groups(items)
    random.Random(SEED).shuffle(groups)
    held: list[Item] = []
    while groups and len(held) + len(groups[-1]) <= len(items) * HELD_OUT:
        held += groups.pop()
    tuning = [item for group in groups for item in group]
    if not held or len(groups) < PARTS:
        raise LuvcError(
            f"{len(items)} questions share too few pictures to hold some out: give questions about more "
            "pictures"
        )
    ends = [len(tuning) * part // PARTS for part in range(PARTS + 1)]
    return [tuning[a:b] for a, b in itertools.pairwise(ends)], held


def _groups(items: Sequence[Item]) -> list[list[Item]]:
    """Questions that are tied by pictures, each run in their order."""
    groups: list[list[Item]] = []
    home: dict[object, list[Item]] = {}
    for item in items:
        pictures = [_named(image) for image in item.images]
        tied = {id(home[p]): home[p] for p in pictures if p in home}
        merged = [*(i for group in tied.values() for i in group), item]
        groups = [group for group in groups if id(group) not in tied]
        groups.append(merged)
        home |= {_named(image): merged for i in merged for image in i.images}
    return groups


def _named(image: object) -> object:
    """A path by its text, a picture in memory by itself."""
    return (
        str(image) if isinstance(image, (str, bytes)) or hasattr(image, "__fspath__") else id(image)
    )
