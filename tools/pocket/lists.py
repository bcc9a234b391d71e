"""Questions that list all there is: for training alone.

A list names what stands where in many tokens, each of which needs only one look at the picture
("red" -> the shape of the red object). That is learnt long before single questions, which look up
twice, and it is what they are then learnt from. Each way of looking up has its list: with colours named
first alone, objects were found by their colour and never by their shape.
"""

from __future__ import annotations

from collections import Counter
from random import Random

from .objects import corner, unique
from .scene import Question, Scene

LIST = "list"
"""Name of the training-only task."""
_LONGEST = 8
_WHAT = ("objects", "shapes")
ORDERS = {
    "left to right": lambda item: item.x,
    "top to bottom": lambda item: item.y,
    "small to large": lambda item: item.size,
}
"""Order -> what objects are sorted by."""


def ask_list(rng: Random, scene: Scene) -> Question | None:
    """Ask for all objects, all texts, or all values of a chart."""
    makers = [_objects] * bool(scene.items) + [_texts] * bool(scene.texts)
    makers += [_values] * (scene.chart is not None)
    return rng.choice(makers)(rng, scene) if makers else None


def list_objects(scene: Scene, order: str, by_shape: bool) -> str:
    """Colours and shapes of the objects in an order, or shapes and colours."""
    ordered = sorted(scene.items, key=ORDERS[order])
    return ", ".join(f"{i.shape} {i.colour}" if by_shape else i.name for i in ordered)


def _objects(rng: Random, scene: Scene) -> Question | None:
    if len(scene.items) > _LONGEST:
        return _kinds(scene)
    if rng.random() < 0.5:
        return _named(rng, scene)
    by_shape, order = rng.random() < 0.5, rng.choice(tuple(ORDERS))
    text = f"List the {_WHAT[by_shape]} from {order}."
    return Question(LIST, text, list_objects(scene, order, by_shape))


def _named(rng: Random, scene: Scene) -> Question | None:
    """Ask for something of objects that are named in no order: nothing but the name finds them."""
    known, wanted = rng.choice((("shape", "colour"), ("colour", "shape"), ("name", "corner")))
    pairs = [
        (getattr(item, known), corner(item) if wanted == "corner" else getattr(item, wanted))
        for item in unique(scene.items, known)
    ]
    pairs = [(name, found) for name, found in pairs if found]
    rng.shuffle(pairs)
    if not pairs:
        return None
    names = ", ".join(name for name, _ in pairs)
    answer = ", ".join(f"{name} {found}" for name, found in pairs)
    return Question(LIST, f"Name the {wanted}s: {names}.", answer)


def _kinds(scene: Scene) -> Question | None:
    """What a field of equal objects holds, and which is odd."""
    counts = Counter(item.name for item in scene.items)
    if len(counts) != 2:
        return None
    answer = ", ".join(name for name, _ in counts.most_common())
    return Question(LIST, "List the two kinds of objects, the rare one last.", answer)


def _texts(_: Random, scene: Scene) -> Question | None:
    ordered = sorted(scene.texts, key=lambda text: text.box[1] + text.box[3])
    answer = ", ".join(f"{text.colour} {text.string}" for text in ordered[:_LONGEST])
    return Question(LIST, "List the texts from top to bottom.", answer)


def _values(rng: Random, scene: Scene) -> Question | None:
    chart = scene.chart
    if chart is None:
        return None
    row = rng.randrange(len(chart.values))
    pairs = zip(chart.labels, chart.values[row], strict=True)
    answer = ", ".join(f"{label} {value}" for label, value in pairs)
    what = f"row {row + 1}" if chart.kind == "table" else "the chart"
    return Question(LIST, f"List the values of {what}.", answer)


def ask_pair_list(rng: Random, scenes: tuple[Scene, Scene]) -> Question:
    """Ask for all objects of one of two pictures."""
    side = rng.randrange(2)
    where, by_shape = ("first", "second")[side], rng.random() < 0.5
    order = rng.choice(tuple(ORDERS))
    text = f"List the {_WHAT[by_shape]} of the {where} picture from {order}."
    return Question(LIST, text, list_objects(scenes[side], order, by_shape) or "none")
