"""PocketVQA's pictures, questions and splits: every answer is found again without the generator."""

import itertools

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
    SHAPES,
    SIZE,
    TASKS,
    TINTS,
)

from .pocket_by_hand import recompute

SAMPLES = 40


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
