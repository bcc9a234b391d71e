"""PocketVQA's pictures, questions and splits: every answer is found again without the generator."""

import itertools
import re

import numpy as np
import pytest

from luvc.errors import LuvcError
from luvc.tools.pocket.dataset import (
    SPLITS,
    TEST_QUESTIONS,
    Record,
    chance_levels,
    example,
    record,
)
from luvc.tools.pocket.drawing import Canvas
from luvc.tools.pocket.render import render
from luvc.tools.pocket.vocabulary import (
    COLOURS,
    CONTENTS,
    PLURALS,
    SHAPES,
    SIZE,
    TASKS,
    TINTS,
)

SHAPE_OF = {plural: shape for shape, plural in PLURALS.items()}
SAMPLES = 40


def matches(pattern: str, text: str) -> tuple[str, ...] | None:
    found = re.fullmatch(pattern, text)
    return found.groups() if found else None


def named(scene, name):
    """The only item called by colour, shape or both."""
    words = name.split()
    (item,) = [i for i in scene.items if all(word in (i.colour, i.shape) for word in words)]
    return item


def corner_of(item) -> str:
    vertical = "top" if item.y < SIZE / 2 else "bottom"
    return f"{vertical} {'left' if item.x < SIZE / 2 else 'right'}"


def answer_colour(scene, text):
    (shape,) = matches(r"What (?:colour is|is the colour of) the (\w+)\?", text)
    return named(scene, shape).colour


def answer_shape(scene, text):
    (colour,) = matches(r"What (?:shape is|is the shape of) the (\w+) object\?", text)
    return named(scene, colour).shape


def answer_count(scene, text):
    (what,) = matches(r"How many (.+) are there\?", text)
    if what in SHAPE_OF:
        return str([i.shape for i in scene.items].count(SHAPE_OF[what]))
    colour = what.removesuffix("objects").strip()
    return str(len([i for i in scene.items if not colour or i.colour == colour]))


def answer_relation(scene, text):
    found = matches(r"Where is the (.+)\?", text)
    if found:
        return corner_of(named(scene, found[0]))
    a, relation, b = matches(r"Is the (\w+ \w+) (left of|right of|above|below) the (.+)\?", text)
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
    found = matches(r"Which is larger, the (\w+) or the (\w+)\?", text)
    return max((named(scene, shape) for shape in found), key=lambda item: item.size).shape


def answer_ocr(scene, text):
    if text in ("What does the text say?", "Read the text."):
        (only,) = scene.texts
        return only.string
    (which,) = matches(r"What does the (\w+) text say\?", text)
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
    a, b = matches(r"Is (\w) greater than (\w)\?", text)
    return "yes" if values[a] > values[b] else "no"


def answer_needle(scene, text):
    what, kind = matches(r"(Where|What colour|What shape) is the (tiny|odd) object\?", text)
    if kind == "tiny":
        item = min(scene.items, key=lambda i: i.size)
    else:
        names = [i.name for i in scene.items]
        (item,) = [i for i in scene.items if names.count(i.name) == 1]
    return {"Where": corner_of(item), "What colour": item.colour, "What shape": item.shape}[what]


def answer_multi(scenes, text):
    first, second = scenes
    if text == "Are the two pictures the same?":
        same = np.array_equal(*(np.asarray(render(scene).image) for scene in scenes))
        return "yes" if same else "no"
    if text == "Which picture has more objects?":
        return "first" if len(first.items) > len(second.items) else "second"
    found = matches(r"Which picture has a (.+)\?", text)
    if found:
        (side,) = [k for k, scene in enumerate(scenes) if found[0] in {i.name for i in scene.items}]
        return ("first", "second")[side]
    shape, side = matches(r"What colour is the (\w+) in the (\w+) picture\?", text)
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
    (order,) = matches(r"List the .* from (\w+ to \w+)\.", text)
    key = {"left to right": "x", "top to bottom": "y", "small to large": "size"}[order]
    ordered = sorted(scene.items, key=lambda i: getattr(i, key))
    pairs = [(i.shape, i.colour) if "shapes" in text else (i.colour, i.shape) for i in ordered]
    return ", ".join(map(" ".join, pairs)) or "none"


ANSWERS = {task: globals()[f"answer_{task}"] for task in (*TASKS, "list")}


def recompute(entry, question):
    whole = question.task in ("multi", "list")
    return ANSWERS[question.task](entry.scenes if whole else entry.scenes[0], question.text)


def questions_of(task):
    """Evaluation and training questions of a task, with their scenes."""
    start = TASKS.index(task)
    for k in range(SAMPLES):
        for entry in (example("validation", start + k * len(TASKS)), record(k, task)):
            for question in entry.questions:
                yield entry, question


@pytest.mark.parametrize("task", TASKS)
def test_answers_follow_from_the_scene(task):
    seen = 0
    for entry, question in questions_of(task):
        assert recompute(entry, question) == question.answer
        assert not question.options or question.answer in question.options
        seen += question.task == task
    assert seen >= 2 * SAMPLES


def test_a_training_page_asks_for_several_texts():
    for seed in range(SAMPLES):
        entry = record(seed, "page")
        assert len(entry.scenes[0].texts) >= 3 and len(entry.questions) >= 3
        for question in entry.questions:
            assert recompute(entry, question) == question.answer


@pytest.mark.parametrize("task", [*TASKS, "page"])
def test_same_seed_same_bytes(task):
    a, b = record(7, task), record(7, task)
    assert a.questions == b.questions
    assert a.pixels().tobytes() == b.pixels().tobytes()
    assert a.labels().tobytes() == b.labels().tobytes()
    assert a.pixels().shape == (2 if task == "multi" else 1, SIZE, SIZE, 3)
    assert record(8, task).pixels().tobytes() != a.pixels().tobytes()


def test_splits_share_no_seed():
    ordered = sorted(SPLITS.values(), key=lambda seeds: seeds.start)
    assert all(a.stop <= b.start for a, b in itertools.pairwise(ordered))
    for index in range(20):
        seeds = {example(split, index).seed for split in SPLITS}
        assert len(seeds) == len(SPLITS)
    assert len({example(split, 5).pixels().tobytes() for split in SPLITS}) == len(SPLITS)


@pytest.mark.parametrize("seed", [-1, SPLITS["train"].stop, SPLITS["test"].start])
def test_a_seed_of_another_split_is_refused(seed):
    with pytest.raises(LuvcError, match="outside the train split"):
        record(seed, "colour")


def test_an_unknown_split_or_index_is_refused():
    with pytest.raises(LuvcError, match="Unknown split 'dev'"):
        example("dev", 0)
    with pytest.raises(LuvcError, match="outside the test split"):
        example("test", len(SPLITS["test"]))


def test_the_test_set_is_balanced_and_hard_to_guess():
    records = [example("test", index) for index in range(TEST_QUESTIONS)]
    tasks = [entry.questions[0].task for entry in records]
    assert {tasks.count(task) for task in TASKS} == {TEST_QUESTIONS // len(TASKS)}
    chance = chance_levels(records)
    assert chance["ocr"] == 0 and chance["colour"] == pytest.approx(1 / len(COLOURS))
    assert chance["shape"] == pytest.approx(1 / len(SHAPES))
    assert all(0 <= chance[task] <= 0.5 for task in TASKS)
    counts = [e.questions[0].answer for e in records if e.questions[0].task == "count"]
    assert set(counts) == set("0123456789")
    read = [e.questions[0].answer for e in records if e.questions[0].task == "ocr"]
    assert max(map(len, read)) <= 6 and all(
        set(text) <= set("".join(CONTENTS[9:])) for text in read
    )


def test_the_picture_shows_the_scene():
    shown = checked = 0
    for seed in range(60):
        entry = record(seed, "relation")
        pixels = entry.pixels()[0]
        for item in entry.scenes[0].items:
            if item.shape != "ring":
                checked += 1
                shown += tuple(pixels[round(item.y), round(item.x)]) == COLOURS[item.colour]
    assert checked > 150 and shown == checked


def test_labels_mark_shapes_and_letters_where_they_are():
    entry = record(3, "shape")
    content, tint = entry.labels()[0]
    for item in entry.scenes[0].items:
        row, column = int(item.y // 8), int(item.x // 8)
        assert CONTENTS[content[row, column]] == item.shape
        assert TINTS[tint[row, column]] == item.colour
    entry = next(e for e in (record(s, "ocr") for s in range(99)) if e.scenes[0].texts[0].size > 24)
    content, _ = entry.labels()[0]
    assert set(entry.scenes[0].texts[0].string) <= {CONTENTS[c] for c in np.unique(content)}


def test_everything_lies_inside_the_picture():
    for seed in range(100):
        for scene in record(seed, "ocr").scenes + record(seed, "count").scenes:
            for item in scene.items:
                half = item.size / 2
                assert half <= item.x <= SIZE - half and half <= item.y <= SIZE - half
            for text in scene.texts:
                assert text.box[0] >= 0 and text.box[2] <= SIZE
                assert text.box[1] >= 0 and text.box[3] <= SIZE


def test_an_unlabelled_canvas_has_empty_labels():
    canvas = Canvas(render(record(0, "photo").scenes[0]).image)
    assert canvas.labels().shape == (2, SIZE // 8, SIZE // 8) and not canvas.labels().any()
    assert isinstance(record(0, "photo"), Record)
