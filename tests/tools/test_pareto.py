"""luvc-pareto as people type it: points, intervals, resuming, what bad data gets."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from luvc.engines import VLM, Bundle
from luvc.exporter import ExportConfig, export
from luvc.tools import workbench
from luvc.tools.pareto import cli as pareto
from luvc.tools.pareto import points
from luvc.tools.pareto.cli import JOURNAL
from luvc.tools.pareto.points import Point, rate
from luvc.tools.workbench import Cost

from ..conftest import TINY, ask

QUESTIONS = ("Why?", "What is this?", "How many?", "Which colour?")
SHORT = ("--max-new-tokens", 4, "--batch", 3, "--text-tokens", 8)


@pytest.fixture
def model(workshop):
    return workshop.checkpoint(**TINY, text="qwen2")


@pytest.fixture
def data(tmp_path, picture):
    """Four questions about two pictures, without answers."""
    for number in range(4):
        Image.fromarray(picture if number % 2 else 255 - picture).save(tmp_path / f"{number}.png")
    return write(tmp_path, [{}] * 4)


def write(folder, more):
    lines = [
        {"image": f"{n}.png", "question": question} | extra
        for n, (question, extra) in enumerate(zip(QUESTIONS, more, strict=True))
    ]
    path = folder / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_answers_are_those_of_exported_bundles(command, workshop, model, data, tmp_path):
    target = tmp_path / "found"
    options = ("--data", data, "--methods", "luvc,uniform", "--ratios", "1.5", "--output", target)
    result = command(pareto, model, *options, *SHORT)
    assert result.code == 0, result.err
    found = json.loads((target / "pareto.json").read_text())
    assert [(p["method"], p["ratio"]) for p in found["points"]] == [
        ("unmodified", 1),
        ("luvc", 1.5),
        ("uniform", 1.5),
    ]
    for point in found["points"]:
        bundle = tmp_path / point["method"]
        if point["ratio"] == 1:
            bundle = workshop.bundle("qwen2", 1.0).path
            assert Bundle.load(bundle).manifest.model == str(model)
        else:
            options = {"ratio": point["ratio"], "method": point["method"], "reference_text": 8}
            export(ExportConfig.make(model=str(model), output=bundle, check=False, **options))
        with VLM.load(bundle, backend="ort", threads=1) as vlm:
            for number, question in enumerate(QUESTIONS):
                image = np.asarray(Image.open(tmp_path / f"{number}.png"))
                answer = vlm.generate(ask(question, image), max_new_tokens=4, temperature=0)
                assert answer.text == point["texts"][number]
    assert found["points"][0]["same"]["value"] == 1 and found["points"][0]["right"] is None
    page = (target / "pareto.html").read_text()
    assert "uniform" in page and not re.search(r'(src|href)="(?!#)', page)


def test_a_run_goes_on_where_it_was(command, model, data, tmp_path, monkeypatch):
    target = tmp_path / "found"
    options = ("--data", data, "--methods", "uniform", "--ratios", "1.5", "--output", target)
    first = command(pareto, model, *options, *SHORT)
    assert first.code == 0, first.err
    before = json.loads((target / "pareto.json").read_text())
    answers = target / JOURNAL
    head, full, last = answers.read_text().splitlines()
    answers.write_text("\n".join((head, full, last[:20])))  # killed in the middle of a line
    asked = []
    plain = workbench.BundleAnswerer.answer
    monkeypatch.setattr(
        workbench.BundleAnswerer, "answer", lambda s, b: asked.append(len(b.items)) or plain(s, b)
    )
    again = command(pareto, model, *options, *SHORT)
    assert again.code == 0 and sum(asked) == len(QUESTIONS)  # those of one plan, not of two
    assert json.loads((target / "pareto.json").read_text()) == before
    other = command(pareto, model, *options, *SHORT, "--limit", 2)
    assert other.code == 2 and "holds the results of another run" in other.err


def test_points_are_rated_pair_by_pair():
    items = [points.Item(str(n), "all", "q", ("yes",), ()) for n in range(4)]

    def point(name, flops, *texts):
        return Point(name, 2.0, Cost(1, flops, 1, 1), texts)

    full = point("unmodified", 4, "yes", "yes", "yes", "no")
    worse = point("worse", 3, "yes", "no", "no", "no")
    better = point("better", 2, "yes", "YES.", "no", "yes")
    rated = rate([full, worse, better], items, "loose")
    assert [r.right and r.right.value for r in rated] == [0.75, 0.25, 0.75]
    assert [r.gain and r.gain.value for r in rated] == [0, -0.5, 0]
    assert [r.same.value for r in rated] == [1, 0.5, 0.25]
    assert [r.best for r in rated] == [False, False, True]
    gain = rated[1].gain
    assert gain is not None and gain.low < -0.5 < gain.high <= 0


def test_plans_that_do_not_exist_are_told(command, model, data, tmp_path):
    options = ("--data", data, "--methods", "uniform", "--ratios", "1.5,50")
    result = command(pareto, model, *options, "--output", tmp_path / "found", *SHORT)
    assert result.code == 0 and "no plan: uniform at 50x: ratio 50x is not feasible" in " ".join(
        result.out.split()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--methods", "magic"), "no method is called 'magic'"),
        (("--ratios", "1"), "holds none above 1"),
        (("--ratios", "fast"), "is not a number"),
        (("--match", "near"), "is not one of exact, loose"),
    ],
)
def test_bad_input_is_refused_in_one_line(command, model, data, tmp_path, options, message):
    result = command(pareto, model, "--data", data, "--output", tmp_path / "found", *options)
    assert result.code == 2 and message in result.err and result.err.count("\n") == 1


def test_answers_in_some_lines_only_are_refused(command, model, data, tmp_path):
    some = write(tmp_path, [{"answer": "yes"}, {}, {}, {}])
    result = command(pareto, model, "--data", some, "--output", tmp_path / "found")
    assert result.code == 2 and "1 of 4 questions have an answer" in result.err
