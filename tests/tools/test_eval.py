"""luvc-eval as people type it: data, intervals, agreement of backends, what bad input gets."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy.stats import binom, binomtest

from luvc.errors import LuvcError
from luvc.exporter.checkpoint.family import Family
from luvc.tools.eval import cli as eval_tool
from luvc.tools.eval import outcome
from luvc.tools.eval.intervals import bootstrap_mean, wilson
from luvc.tools.eval.items import is_right, pocket_items, read_jsonl
from luvc.tools.hugging_face import unmerged

from ..conftest import ask

QUESTIONS = ("Why?", "What is this?", "How many?", "Which colour?")


@pytest.fixture
def data(workshop, picture, tmp_path):
    """Four questions about two pictures; the answers to the first three are the model's own."""
    vlm = workshop.vlm("qwen2")
    lines = []
    for number, question in enumerate(QUESTIONS):
        image = picture if number % 2 else 255 - picture
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        answer = vlm.generate(ask(question, image), max_new_tokens=4, temperature=0).text
        lines.append(
            {
                "image": f"{number}.png",
                "question": question,
                "task": "ab"[number % 2],
                "answer": ["x", answer.upper() + "."] if number < 3 else "something else",
            }
        )
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    return path


def test_a_bundle_agrees_with_pytorch_on_data_of_ones_own(workshop, data, tmp_path, command):
    bundle = workshop.bundle("qwen2").path
    options = ("--data", data, "--max-new-tokens", 4, "--batch", 3, "--threads", 1)
    ours, theirs = tmp_path / "ours.json", tmp_path / "out" / "theirs.json"
    first = command(eval_tool, bundle, *options, "--output", ours)
    assert first.code == 0, first.err
    assert "overall" in first.out and "75.0" in first.out
    found = json.loads(ours.read_text())
    assert [a["right"] for a in found["answers"]] == [True, True, True, False]
    assert found["match"] == "loose" and found["tasks"]["b"]["right"] == 1
    assert found["tasks"]["overall"]["low"] < 0.75 < found["tasks"]["overall"]["high"]
    second = command(
        eval_tool,
        bundle,
        *options,
        "--backend",
        "torch",
        "--compare",
        ours,
        "--min-agreement",
        1,
        "--output",
        theirs,
        "--plot",
        tmp_path / "new" / "plot.png",
    )
    assert second.code == 0, second.err
    assert "equal answers: 100.00% of 4" in second.err
    assert Image.open(tmp_path / "new" / "plot.png").size[0] > 500
    strict = command(eval_tool, bundle, *options, "--match", "exact", "--json")
    assert json.loads(strict.out)["tasks"]["overall"]["right"] == 0


def test_questions_without_a_picture(workshop, tmp_path, command):
    bundle = workshop.bundle("qwen2-text")
    right = workshop.vlm("qwen2-text").generate(ask("Why?"), max_new_tokens=4, temperature=0).text
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"images": [], "question": "Why?", "answer": right}))
    options = ("--data", path, "--max-new-tokens", 4, "--threads", 1)
    result = command(eval_tool, bundle.path, *options, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["answers"][0]["right"]
    none = command(eval_tool, workshop.bundle("qwen2").path, *options)
    assert none.code == 2 and "they have 0 image(s)" in none.err
    processor = unmerged(bundle, Family.load(bundle.manifest.model))
    (layout,) = processor.manifest.layouts
    assert layout.visual_tokens == layout.baseline_visual_tokens > 0


def test_agreement_below_the_limit_is_exit_code_1(workshop, data, tmp_path, command):
    bundle, out = workshop.bundle("qwen2").path, tmp_path / "out.json"
    options = ("--data", data, "--max-new-tokens", 4, "--threads", 1)
    assert command(eval_tool, bundle, *options, "--output", out).code == 0
    other = json.loads(out.read_text())
    other["answers"][1]["prediction"] = "otherwise"
    other["answers"][1]["right"] = False
    out.write_text(json.dumps(other))
    result = command(eval_tool, bundle, *options, "--compare", out, "--min-agreement", 0.995)
    assert result.code == 1 and "equal answers: 75.00%" in result.err
    assert "accuracy +25.00 points" in result.err and "'otherwise'" in result.err


def test_ratio_1_equals_hugging_faces_generate_on_pocketvqa(workshop, tmp_path, command):
    bundle, out = workshop.bundle("qwen2", 1.0).path, tmp_path / "hf.json"
    options = ("--limit", 12, "--max-new-tokens", 6, "--threads", 1)
    result = command(eval_tool, bundle, *options, "--backend", "hf", "--output", out)
    assert result.code == 0, result.err
    assert "not asked 1 of task multi" in result.err
    assert json.loads(out.read_text())["skipped"] == {"multi": 1}
    result = command(eval_tool, bundle, *options, "--compare", out, "--min-agreement", 1)
    assert result.code == 0, result.err
    assert "equal answers: 100.00% of 11" in result.err


def test_pocket_questions_are_those_of_the_split():
    test, validation = (list(pocket_items(split, 10)) for split in ("test", "validation"))
    assert [item.id for item in test][:2] == ["test-0", "test-1"]
    assert len({item.task for item in test}) == 10 and len(test[8].images) == 2
    assert test[0].question != validation[0].question or test[0].answers != validation[0].answers
    with pytest.raises(LuvcError, match="--split dev does not exist"):
        list(pocket_items("dev", 1))


@pytest.mark.parametrize(
    ("seen", "drawn"), [(None, 192), ((192, 192), 192), ((384, 448), 384), ((2000, 2000), 768)]
)
def test_pictures_are_drawn_as_finely_as_they_are_seen(seen, drawn):
    plain, finer = list(pocket_items("test", 2)), list(pocket_items("test", 2, seen))
    assert [(x.id, x.question, x.answers) for x in finer] == [
        (x.id, x.question, x.answers) for x in plain
    ]
    assert {image.size for item in finer for image in item.images} == {(drawn, drawn)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not valid JSON"),
        ('{"image": "a.png", "answer": "x"}', "line 2: question"),
        ('{"question": "q", "answer": "x"}', "needs 'image' or 'images'"),
        ('{"image": "", "question": "q", "answer": "x"}', "needs 'image' or 'images'"),
        ('{"image": "b.png", "question": "q", "answer": "x"}', "there is no image"),
        ('{"image": "a.png", "question": "q", "answer": "x", "id": "1"}', "ids are not unique"),
        ('{"image": "\\u0000", "question": "q", "answer": "x"}', "line 2: there is no image"),
        (f'{{"image": "{"a" * 5000}", "question": "q", "answer": "x"}}', "there is no image"),
        ('{"image": ["a.png"], "question": "q", "answer": "x"}', "line 2: image: .*mend the line"),
        ('{"image": "a.png", "question": "\\ud800", "answer": "x"}', "question: .*surrogate"),
        ('{"image": "a.png", "question": "q", "answer": [1]}', "line 2: answer"),
        ('{"question": ' + "[" * 100_000, "line 2 is not valid JSON"),
        ("[" * 101 + "]" * 101, "line 2 is not valid JSON: .*nested"),
        ("\udcff", r"line 2 is not UTF-8 \(byte 0\): write the file in UTF-8"),
        ("17", "line 2: "),
    ],
)
def test_lines_that_cannot_be_asked(tmp_path, line, message):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    path = tmp_path / "data.jsonl"
    text = '{"image": "a.png", "question": "q\u2028", "answer": "x"}\n' + line
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(LuvcError, match=message):
        read_jsonl(path, None)


def test_what_cannot_be_evaluated(workshop, data, tmp_path, command):
    bundle = workshop.bundle("qwen2").path
    checkpoint = workshop.checkpoint(layers=3, vision_layers=1, image=112)
    nothing = tmp_path / "nothing.json"
    nothing.write_text("{}")
    for arguments, message in (
        ((checkpoint,), "is a checkpoint: export it first"),
        ((bundle, "--match", "vague"), "--match vague"),
        ((bundle, "--min-agreement", 1), "--min-agreement needs --compare"),
        ((bundle, "--compare", nothing), "is not a file of luvc-eval --output"),
        ((bundle, "--data", tmp_path / "no.jsonl"), "no.jsonl is no file"),
    ):
        result = command(eval_tool, *arguments)
        assert result.code == 2 and message in result.err, result.err


def test_where_it_writes_is_looked_at_before_anything_is_asked(tmp_path, command, monkeypatch):
    for arguments, message in (
        (("--output", tmp_path), f"--output {tmp_path} is a folder"),
        (("--output", "/dev/null/x.json"), "/dev/null is no folder with write access"),
        (("--plot", tmp_path), f"--plot {tmp_path} is a folder"),
        (("--plot", tmp_path / "plot.doc"), "plot.doc does not end in a format of pictures"),
        (("--plot", tmp_path / "plot"), "plot does not end in a format of pictures"),
    ):
        result = command(eval_tool, tmp_path / "nowhere", *arguments)
        assert result.code == 2 and message in result.err, result.err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = command(eval_tool, tmp_path / "nowhere", "--plot", tmp_path / "plot.png")
    assert result.code == 2 and "needs matplotlib: pip install" in result.err
    assert not list(tmp_path.iterdir())


WRITTEN = {
    "ratio": 2.0,
    "data": "x.jsonl",
    "answered_by": "a bundle",
    "tasks": {"[/b]\x1b[31m": {"questions": 1, "right": 1, "accuracy": 1.0, "low": 0.2, "high": 1}},
    "answers": [{"id": "1", "question": "q", "prediction": "x", "right": True, "task": "all"}],
    "seconds": 1.5,
}


def test_a_file_that_was_written_is_read_back(tmp_path):
    """What its words say to rich or to a terminal is shown and not obeyed."""
    (tmp_path / "a.json").write_text(json.dumps(WRITTEN))
    found = outcome.read(tmp_path / "a.json")
    assert found == WRITTEN
    console = Console(width=120)
    with console.capture() as capture:
        console.print(outcome.table(found, found))
    assert "[/b]\\x1b[31m" in capture.get()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratio": "2"}, "ratio: "),
        ({"ratio": 0}, "ratio: "),
        ({"ratio": float("nan")}, "ratio: "),
        ({"tasks": []}, "tasks: "),
        ({"tasks": {"a": {}}}, r"tasks\.a\.questions: Field required"),
        (
            {"answers": [{"id": [], "question": "q", "prediction": "x", "right": True}]},
            "answers.0.id",
        ),
        ({"answers": [{"id": "1", "question": "q", "prediction": "x"}]}, "answers.0.right"),
        ({"data": None}, "data: "),
        ({"answered_by": "\ud800"}, "answered_by: .*surrogate"),
    ],
)
def test_a_file_that_was_changed_is_refused(tmp_path, change, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(WRITTEN | change))
    with pytest.raises(
        LuvcError, match=f"a.json is not a file of luvc-eval --output.*{message}.*again"
    ):
        outcome.read(path)


def test_matching():
    assert is_right(" red\n", ("red",), "exact") and not is_right("Red", ("red",), "exact")
    assert is_right("The  Cat.", ("a dog", "the cat"), "loose")
    assert not is_right("the cats", ("the cat",), "loose")


def test_intervals():
    for right, count in ((8, 10), (0, 7), (7, 7), (199, 200), (993, 2000)):
        share, wanted = wilson(right, count), binomtest(right, count).proportion_ci(method="wilson")
        assert (share.low, share.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert np.isnan(wilson(0, 0).value)
    values = np.repeat([0.0, 1.0], [40, 160])
    found = bootstrap_mean(values)
    assert found.value == 0.8
    wanted = binom(200, 0.8).ppf([0.025, 0.975]) / 200
    assert (found.low, found.high) == pytest.approx(tuple(wanted), abs=0.011)
    assert bootstrap_mean(np.zeros(5)).high == 0
