"""Questions about two pictures."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from . import backgrounds
from .objects import COLOUR_NAMES, YES_NO, add_item, random_items, unique
from .scene import Box, Item, Question, Scene
from .vocabulary import COLOURS, SHAPES

ORDER = ("first", "second")


def build_pair(rng: Random) -> tuple[Scene, Scene]:
    """Draw two scenes: one twice, one with a single change, or two unrelated ones."""
    taken: list[Box] = []
    items = random_items(rng, taken, rng.randint(2, 5))
    first = Scene(backgrounds.sample(rng), tuple(items))
    relation = rng.random()
    if relation < 0.3:
        return first, first
    if relation < 0.6:
        changed = replace(first, items=change(rng, items, taken))
        return (first, changed) if rng.random() < 0.5 else (changed, first)
    second = Scene(backgrounds.sample(rng), tuple(random_items(rng, [], rng.randint(2, 5))))
    return first, second


def change(rng: Random, items: list[Item], taken: list[Box]) -> tuple[Item, ...]:
    """Recolour, reshape, remove or add one item."""
    items, k = list(items), rng.randrange(len(items))
    kind = rng.choice(("colour", "shape", "remove", "add"))
    if kind == "colour":
        colour = rng.choice([c for c in COLOURS if c != items[k].colour])
        items[k] = replace(items[k], colour=colour)
    elif kind == "shape":
        items[k] = replace(items[k], shape=rng.choice([s for s in SHAPES if s != items[k].shape]))
    elif kind == "remove":
        del items[k]
    else:
        add_item(rng, items, taken, rng.choice(SHAPES), rng.choice(COLOUR_NAMES), 28)
    return tuple(items)


def ask_pair(rng: Random, scenes: tuple[Scene, Scene]) -> Question | None:
    """Ask about equality, numbers, presence or a colour in one of two pictures."""
    first, second = scenes
    kind = rng.choice(("same", "more", "which", "colour"))
    if kind == "same":
        # Unrelated pictures would make the question trivial and "no" its usual answer.
        if first.background != second.background:
            return None
        text = "Are the two pictures the same?"
        return Question("multi", text, YES_NO[first != second], YES_NO, kind)
    if kind == "more":
        a, b = len(first.items), len(second.items)
        if a == b:
            return None
        return Question("multi", "Which picture has more objects?", ORDER[a < b], ORDER, kind)
    if kind == "which":
        names = [{item.name for item in scene.items} for scene in scenes]
        only = sorted(names[0] ^ names[1])
        if not only:
            return None
        name = rng.choice(only)
        text = f"Which picture has a {name}?"
        return Question("multi", text, ORDER[name in names[1]], ORDER, kind)
    side = rng.randrange(2)
    found = unique(scenes[side].items, "shape")
    if not found:
        return None
    item = rng.choice(found)
    text = f"What colour is the {item.shape} in the {ORDER[side]} picture?"
    return Question("multi", text, item.colour, COLOUR_NAMES, kind)
