"""The study's passes against Hugging Face and the runtime's own steps, its command and its files."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from benchmarks.accuracy import __main__ as command
from benchmarks.accuracy import choose, questions, report, setup
from benchmarks.accuracy import map as tower_map
from benchmarks.accuracy.map_results import Map
from benchmarks.accuracy.methods import METHODS, SEEDS
from benchmarks.accuracy.results import Results
from benchmarks.accuracy.study import CONTROL, Study
from benchmarks.training.checkpoint import build_config, build_model, save_checkpoint
from benchmarks.training.packing import Packer, turn
from benchmarks.training.tokenizer import build_tokenizer
from luvc.engines.backends.base import StepFeed
from luvc.engines.bundle.schedule import Schedule
from luvc.engines.prompt.processing import Prompt, open_image
from luvc.exporter.planning.defaults import PAPER
from luvc.tools.hugging_face import model_inputs
from luvc.tools.journal import Journal
from tests.families import checkpoints

pytestmark = pytest.mark.xdist_group("accuracy-study")  # what one test computes, others read
QUESTIONS = 9  # one of each task but "photo"; the last has two pictures
LENGTH = 3
FAMILIES = ("gemma3", "paligemma", "qwen3_vl")
"""Masks that look ahead, positions in three axes, features for deeper layers."""


def written(folder) -> Results:
    """What a run on the test split left."""
    results = Results.read("test", folder)
    assert results is not None
    return results


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    """A pocket model with random weights."""
    torch.set_num_threads(1)
    model = build_model(build_config(tokenizer)).eval()
    for name, parameter in model.named_parameters():
        if "layernorm" in name:  # with equal weights all normalised tokens have the same energy
            parameter.data.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("pocket")
    save_checkpoint(model, tokenizer, path)
    return path


@pytest.fixture(scope="module")
def study(folder) -> Study:
    return setup.load(str(folder), "validation", QUESTIONS, "cpu", batch=8)[0]


def hugging_face(folder) -> Any:
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


def test_prompts_are_those_that_the_pocket_model_learnt(study, tokenizer):
    packer = Packer(tokenizer)
    for number, part in enumerate(study.parts):
        pictures = len(part[0].pictures)
        ids = study.ids(number, study.layout(pictures, Schedule()))
        for item, prompt, answer in zip(part, ids, study.answers[number], strict=True):
            before, after = map(packer.encode, turn(item.question, item.answer))
            assert prompt == [*packer.prefix(pictures), *before]
            assert [*answer, *study.prompts.ends] == list(after)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["pocket", *FAMILIES])
def test_right_means_what_hugging_face_would_generate(folder, name, tmp_path):
    """Of any family: its greedy answer is right, and no other is."""
    if name != "pocket":
        folder = checkpoints.write(name, tmp_path)
    study, _ = setup.load(str(folder), "validation", 2, "cpu", batch=2)
    model = hugging_face(folder)
    layout = study.layout(1, Schedule())
    answers = []
    for item, ids in zip(study.parts[0], study.ids(0, layout), strict=True):
        given = _inputs(study, model, layout, item, ids)
        out = model.generate(**given, max_new_tokens=LENGTH, do_sample=False)
        answers.append(out[0, len(ids) :].tolist())
    study.answers, study.runner.text_capacity = [answers], study.runner.text_capacity + LENGTH
    ends = study.prompts.ends
    study.prompts.ends = np.arange(layout.baseline_visual_tokens + 100_000)  # any token ends it
    assert study.right({1: study.layout(1, Schedule())}).all()
    for place in range(LENGTH):
        wrong = [list(answer) for answer in answers]
        wrong[1][place] += 1
        study.answers = [wrong]
        assert study.right({1: study.layout(1, Schedule())}).tolist() == [True, False]
    study.answers, study.prompts.ends = [answers], ends
    assert not study.right({1: study.layout(1, Schedule())}).any()  # none of them ends there


def _inputs(study: Study, model, layout, item, ids) -> dict:
    """What Hugging Face's generate takes of one question."""
    images = tuple(open_image(picture) for picture in item.pictures)
    prompt = Prompt(layout, "", ids, images)
    return model_inputs(model, study.family, study.prompts.processor(layout), [prompt])


@pytest.mark.parametrize(
    "name", ["luvc", "paper", "oim share 0.5 match", "scope image", "fastv", "drop-all", "random"]
)
def test_one_pass_is_a_prefill_and_steps(study, name):
    """The answer behind the prompt changes nothing, and is told as decoding would tell it."""
    runner = study.runner
    for P, schedule in study.schedules(METHODS[name], 2.0).items():
        number = next(n for n, part in enumerate(study.parts) if len(part[0].pictures) == P)
        layout, answers = study.layout(P, schedule), study.answers[number]
        places = 1 + max(map(len, answers))
        ours = runner.logits(layout, study.feed(number, layout), places).numpy()
        ids, embeds = study.ids(number, layout), study.embeds(number, layout)
        feed = runner.feed(layout, ids, [[] for _ in ids], embeds)
        caches = runner.new_caches(layout, len(ids))
        steps = [runner.prefill(layout, feed, caches).logits]
        lengths = np.array([len(i) for i in ids])
        for place in range(places - 1):
            new = np.array([a[place] if place < len(a) else 0 for a in answers])[:, None]
            step = StepFeed(
                new,
                lengths[:, None] + place,
                lengths - layout.visual_tokens + place,
                np.zeros(len(ids), np.int64),
            )
            steps.append(runner.step(layout, step, caches))
        for row, answer in enumerate(answers):
            theirs = np.stack([logits[row] for logits in steps])[: 1 + len(answer)]
            np.testing.assert_allclose(ours[row, : len(theirs)], theirs, atol=3e-4, rtol=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs(study, name):
    method = METHODS[name]
    if name == "downsample":
        pytest.skip("the study shows pictures of one size")
    schedules = study.schedules(method, 2.0)
    for number, part in enumerate(study.parts):
        P = len(part[0].pictures)
        layout = study.layout(P, schedules[P])
        logits = study.runner.logits(layout, study.feed(number, layout), 2)
        assert logits.shape == (len(part), 2, 640) and torch.isfinite(logits).all()
        seen = [s.visual for s in layout.stages for _ in range(s.first, s.last + 1)]
        assert np.mean(seen) == pytest.approx(study.problems[P].mean(schedules[P]))


def test_draws_differ_by_their_seed(study):
    layouts = [study.layout(1, study.schedules(METHODS["random"], 2.0, s)[1]) for s in (0, 1, 1)]
    first, second, again = (
        study.runner.logits(layout, study.feed(0, layout), 1) for layout in layouts
    )
    assert torch.equal(second, again) and not torch.allclose(first, second)


def test_processes_draw_the_same_questions():
    here, there = (questions.load("validation", QUESTIONS, workers=n) for n in (0, 2))
    for one, other in zip(here, there, strict=True):
        assert (one.number, one.task, one.answer) == (other.number, other.task, other.answer)
        assert np.array_equal(one.pictures, other.pictures)


def run(folder, output, limit: int, methods: list[str]) -> None:
    """The command, at 2x."""
    command.run(
        str(folder),
        limit=limit,
        ratio=[2.0],
        method=methods,
        device="cpu",
        batch=4,
        workers=0,
        output=output,
    )


def test_the_command_writes_everything(folder, tmp_path):
    run(folder, tmp_path, 3, ["luvc", "random", "signal raw"])
    results = written(tmp_path)
    assert results.tasks.tolist() == ["colour", "shape", "count"]
    assert results.rows["random", 2.0].right.shape == (5, 3)
    assert Schedule(**results.rows["signal raw", 2.0].fields["schedule"]).scored == [1, 2, 4]
    data = json.loads((tmp_path / "spectrum.json").read_text())
    assert np.array(data["curves"]["SPU, band low 0.25"]).shape == (8, 144)
    assert np.allclose(np.mean(data["curves"]["SPU, band low 0.25"], axis=1), 1, atol=1e-4)
    assert not list(tmp_path.glob("*.partial.jsonl"))
    page = report.write(tmp_path, tmp_path / "docs")
    assert "| **luvc** |" in page and (tmp_path / "docs" / "spectrum.png").stat().st_size > 10_000
    assert "The figures above are older" not in page


def test_a_stopped_run_goes_on(folder, tmp_path, monkeypatch):
    asked, schedules = [], Study.schedules

    def stops(self, method, ratio, seed=0):
        asked.append(method.name)
        if len(asked) == 5:
            raise KeyboardInterrupt
        return schedules(self, method, ratio, seed)

    methods = ["luvc", "uniform", "random"]
    monkeypatch.setattr(Study, "schedules", stops)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path, 2, methods)
    assert not (tmp_path / "accuracy_test.json").exists()
    partial = tmp_path / "accuracy_test.partial.jsonl"
    partial.write_text(partial.read_text() + '["half a li')
    run(folder, tmp_path, 2, methods)
    assert asked == ["ratio 1", "luvc", "uniform", *["random"] * (SEEDS + 1)]  # one of them twice
    monkeypatch.setattr(Study, "schedules", schedules)
    stopped = written(tmp_path).data["rows"]
    run(folder, tmp_path, 2, methods)
    assert written(tmp_path).data["rows"] == stopped


def test_another_runs_journal_is_begun_anew(tmp_path):
    path = tmp_path / "a.jsonl"
    for head, expected in (({"of": (1, 2)}, 1), ({"of": (1, 2)}, 1), ({"of": (1, 3)}, 2)):
        journal = Journal(path, head, anew=True)
        found = journal.once("x", lambda value=expected: {"value": value})
        assert found == {"value": expected}
    journal.close()
    assert not path.exists()


def test_options_that_mean_the_same_are_measured_once(study, tmp_path):
    journal = Journal(tmp_path / "a.jsonl", {})
    measure = choose.measured(study, journal)
    plain = dataclasses.replace(PAPER, oim_share=0.0)
    first = measure(plain)
    assert set(first) == set(choose.RATIOS) and len(journal.known) == len(choose.RATIOS)
    assert measure(dataclasses.replace(plain, match=True)) is first  # there is nothing to match
    for ratio, right in first.items():
        assert (right == study.right(study.layouts(METHODS["paper spu"], ratio))).all()


def test_ratio_1_is_the_control(study):
    assert list(study.schedules(CONTROL, 1.0).values()) == [Schedule()] * 2


def test_the_map_of_tower_and_language_model(folder, tmp_path, monkeypatch):
    """Points have the ratios of their schedules; the first one loses nothing; a page shows them."""
    small = {"TOWERS": (1.0, 1.4), "PREFILLS": (1.0, 2.0), "FIXED": (), "DEPTHS": (0.5,)}
    for name, values in small.items():
        monkeypatch.setattr(tower_map, name, values)
    tower_map.run(
        str(folder), "tiny", "validation", QUESTIONS, device="cpu", batch=8, output=tmp_path
    )
    (found,) = Map.read_all(tmp_path)
    assert len(found.points) == 5 and found.at(1.0, 1.0) is found.whole
    assert found.lost(found.whole).value == 0
    (shorter,) = (t for t in found.towers if t > 1)
    assert 1.4 <= shorter < 1.5
    both = found.at(shorter, 2.0)
    assert both and len(both.lengths) > 1 and 2 <= both.prefill < 2.05
    study, _ = setup.load(str(folder), "validation", QUESTIONS, "cpu", batch=8)
    row = next(r for r in found.data["rows"] if (r["method"], r["ratio"]) == ("matched 1.4", 2.0))
    schedule = Schedule.model_validate(row["schedule"])
    right = study.right({P: study.layout(P, schedule) for P in (1, 2)})
    assert (right == both.right).all()
    (step,) = found.others
    assert step.how == "one step at 0.5" and 1 < step.tower < tower_map.ONE_STEP
    chosen = {"towers": [1.4], "prefills": [2.0], "output": tmp_path}
    tower_map.run(str(folder), "tiny", "test", QUESTIONS, device="cpu", batch=8, **chosen)
    _, tested = Map.read_all(tmp_path)
    assert [(p.tower > 1, p.asked) for p in tested.points] == [(False, 1), (True, 2)]
    page = report.write(tmp_path, tmp_path)
    assert "| tiny, 9 |" in page
    assert "one step at 0.5" in page and (tmp_path / "accuracy-map.png").is_file()
