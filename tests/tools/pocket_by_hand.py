"""PocketVQA's questions, answered from the scene without the generator."""

import re

import numpy as np

from luvc.tools.pocket.render import render
from luvc.tools.pocket.vocabulary import (
    PLURALS,
    SIZE,
    TASKS,
)

SHAPE_OF = {plural: shape for shape, plural in PLURALS.items()}


def matches(pattern: str, text: str) -> tuple[str, ...] | None:
    found = re.fullmatch(pattern, text)
    return found.groups() if found else None


def parts(pattern: str, text: str) -> tuple[str, ...]:
    """`matches`, of a question that has no other form."""
    found = matches(pattern, text)
    assert found is not None, text
    return found


def named(scene, name):
    """The only item called by colour, shape or both."""
    words = name.split()
    (item,) = [i for i in scene.items if all(word in (i.colour, i.shape) for word in words)]
    return item


def corner_of(item) -> str:
    vertical = "top" if item.y < SIZE / 2 else "bottom"
    return f"{vertical} {'left' if item.x < SIZE / 2 else 'right'}"


def answer_colour(scene, text):
    (shape,) = parts(r"What (?:colour is|is the colour of) the (\w+)\?", text)
    return named(scene, shape).colour


def answer_shape(scene, text):
    (colour,) = parts(r"What (?:shape is|is the shape of) the (\w+) object\?", text)
    return named(scene, colour).shape


def answer_count(scene, text):
    (what,) = parts(r"How many (.+) are there\?", text)
    if what in SHAPE_OF:
        return str([i.shape for i in scene.items].count(SHAPE_OF[what]))
    colour = what.removesuffix("objects").strip()
    return str(len([i for i in scene.items if not colour or i.colour == colour]))


def answer_relation(scene, text):
    found = matches(r"Where is the (.+)\?", text)
    if found:
        return corner_of(named(scene, found[0]))
    a, relation, b = parts(r"Is the (\w+ \w+) (left of|right of|above|below) the (.+)\?", text)
    a, b = named(scene, a), named(scene, b)
    holds = {"left of": a.x < b.x, "right of": a.x > b.x, "above": a.y < b.y, "below": a.y > b.y}
    return "yes" if holds[relation] else "no"


def answer_compare(scene, text):
    found = matches(r"Are there more (\w+) than (\w+)\?", text)
    if found:
        a, b = (sum(i.shape == SHAPE_OF[plural] for i in scene.items) for plural in found)
        assert a != b
        return "yes" if a > b else "no"
    found = matches(r"Are the (\w+) and the (\w+) the same colour\?", text)
    if found:
        a, b = (named(scene, shape) for shape in found)
        return "yes" if a.colour == b.colour else "no"
    found = parts(r"Which is larger, the (\w+) or the (\w+)\?", text)
    return max((named(scene, shape) for shape in found), key=lambda item: item.size).shape


def answer_ocr(scene, text):
    if text in ("What does the text say?", "Read the text."):
        (only,) = scene.texts
        return only.string
    (which,) = parts(r"What does the (\w+) text say\?", text)
    if which in ("top", "bottom"):
        ordered = sorted(scene.texts, key=lambda t: t.box[1] + t.box[3])
        return ordered[0 if which == "top" else -1].string
    (only,) = [t for t in scene.texts if t.colour == which]
    return only.string


def answer_chart(scene, text):
    chart = scene.chart
    found = matches(r"What number is in row (\d), column (\w)\?", text)
    if found:
        return str(chart.values[int(found[0]) - 1][chart.labels.index(found[1])])
    values = dict(zip(chart.labels, chart.values[0], strict=True))
    found = matches(r"What is the value of (\w)\?", text)
    if found:
        return str(values[found[0]])
    found = matches(r"Which (?:bar|point) is the (highest|lowest)\?", text)
    if found:
        best = (max if found[0] == "highest" else min)(values.values())
        (label,) = [label for label, value in values.items() if value == best]
        return label
    a, b = parts(r"Is (\w) greater than (\w)\?", text)
    return "yes" if values[a] > values[b] else "no"


def answer_needle(scene, text):
    what, kind = parts(r"(Where|What colour|What shape) is the (tiny|odd) object\?", text)
    if kind == "tiny":
        item = min(scene.items, key=lambda i: i.size)
    else:
        names = [i.name for i in scene.items]
        (item,) = [i for i in scene.items if names.count(i.name) == 1]
    return {"Where": corner_of(item), "What colour": item.colour, "What shape": item.shape}[what]


def answer_multi(scenes, text):
    first, second = scenes
    if text == "Are the two pictures the same?":
        one, other = (np.asarray(render(scene).image) for scene in scenes)
        return "yes" if np.array_equal(one, other) else "no"
    if text == "Which picture has more objects?":
        return "first" if len(first.items) > len(second.items) else "second"
    found = matches(r"Which picture has a (.+)\?", text)
    if found:
        (side,) = [k for k, scene in enumerate(scenes) if found[0] in {i.name for i in scene.items}]
        return ("first", "second")[side]
    shape, side = parts(r"What colour is the (\w+) in the (\w+) picture\?", text)
    return named(scenes[side == "second"], shape).colour


def answer_photo(scene, text):
    assert text in ("What does the photo show?", "What is in the photo?")
    return scene.background.name


def answer_list(scenes, text):
    scene = scenes[0]
    found = matches(r"List the values of (?:row (\d)|the chart)\.", text)
    if found:
        values = scene.chart.values[int(found[0] or 1) - 1]
        return ", ".join(f"{a} {b}" for a, b in zip(scene.chart.labels, values, strict=True))
    if text == "List the texts from top to bottom.":
        ordered = sorted(scene.texts, key=lambda t: t.box[1] + t.box[3])
        return ", ".join(f"{t.colour} {t.string}" for t in ordered[:8])
    if text == "List the two kinds of objects, the rare one last.":
        names = [f"{i.colour} {i.shape}" for i in scene.items]
        return ", ".join(sorted(set(names), key=names.count, reverse=True))
    scene = scenes["second" in text]
    found = matches(r"Name the (\w+)s: (.+)\.", text)
    if found:
        of = {
            "colour": {i.shape: i.colour for i in scene.items},
            "shape": {i.colour: i.shape for i in scene.items},
            "corner": {f"{i.colour} {i.shape}": corner_of(i) for i in scene.items},
        }[found[0]]
        return ", ".join(f"{name} {of[name]}" for name in found[1].split(", "))
    (order,) = parts(r"List the .* from (\w+ to \w+)\.", text)
    key = {"left to right": "x", "top to bottom": "y", "small to large": "size"}[order]
    ordered = sorted(scene.items, key=lambda i: getattr(i, key))
    pairs = [(i.shape, i.colour) if "shapes" in text else (i.colour, i.shape) for i in ordered]
    return ", ".join(map(" ".join, pairs)) or "none"


ANSWERS = {task: globals()[f"answer_{task}"] for task in (*TASKS, "list")}


def recompute(entry, question):
    whole = question.task in ("multi", "list")
    return ANSWERS[question.task](entry.scenes if whole else entry.scenes[0], question.text)
