"""Questions that list all there is: for training alone.

A list names what stands where in many tokens, each of which needs only one look at the picture
("red" -> the shape of the red object). That is learnt long before single questions, which look up
twice, and it is what they are then learnt from.
"""

from __future__ import annotations

from random import Random

from .scene import Question, Scene

LIST = "list"
"""Name of the training-only task."""
_LONGEST = 8


def ask_list(rng: Random, scene: Scene) -> Question | None:
    """Ask for all objects, all texts, or all values of a chart."""
    makers = [_objects] * bool(scene.items) + [_texts] * bool(scene.texts)
    makers += [_values] * (scene.chart is not None)
    return rng.choice(makers)(rng, scene) if makers else None


def list_objects(scene: Scene) -> str:
    """Names of the objects from left to right."""
    return ", ".join(item.name for item in sorted(scene.items, key=lambda item: item.x))


def _objects(_: Random, scene: Scene) -> Question | None:
    if len(scene.items) > _LONGEST:
        return None
    return Question(LIST, "List the objects from left to right.", list_objects(scene))


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
    where = ("first", "second")[side]
    text = f"List the objects of the {where} picture from left to right."
    return Question(LIST, text, list_objects(scenes[side]) or "none")
