"""The study's passes against Hugging Face and the product, its command and its files."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.accuracy import __main__ as command
from benchmarks.accuracy import choose, questions, report
from benchmarks.accuracy.draws import Draws
from benchmarks.accuracy.journal import Journal
from benchmarks.accuracy.methods import METHODS, SEEDS
from benchmarks.accuracy.plans import Budget
from benchmarks.accuracy.results import Results
from benchmarks.accuracy.study import CONTROL, Study
from benchmarks.training.checkpoint import build_config, build_model, save_checkpoint
from benchmarks.training.packing import IGNORE
from benchmarks.training.tokenizer import build_tokenizer
from luvc.engines.backends.base import PrefillFeed
from luvc.engines.bundle.schedule import Prune, Schedule
from luvc.exporter.check.torch_runner import TorchRunner
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.layouts import image_geometry, plan_layout
from luvc.exporter.planning.defaults import DEFAULTS, PAPER

pytestmark = pytest.mark.xdist_group("accuracy-study")  # what one test computes, others read
CPU = torch.device("cpu")
QUESTIONS = 9  # one of each task but "photo"; the last has two pictures


def written(folder: Path) -> Results:
    """What a run on the test split left."""
    results = Results.read("test", folder)
    assert results is not None
    return results


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def study(tokenizer):
    torch.set_num_threads(1)
    model = build_model(build_config(tokenizer)).eval()
    for name, parameter in model.named_parameters():
        if "layernorm" in name:  # with equal weights all normalised tokens have the same energy
            parameter.data.uniform_(0.5, 1.5)
    return Study(model, questions.load("validation", QUESTIONS, tokenizer), CPU, batch=8)


@pytest.fixture(scope="module")
def folder(study, tokenizer, tmp_path_factory):
    """The same weights as a checkpoint directory, rounded to half precision as it stores them."""
    path = tmp_path_factory.mktemp("pocket")
    save_checkpoint(study.model, tokenizer, path)
    for parameter in study.model.parameters():
        parameter.data = parameter.data.half().float()
    study._looked.clear()
    study.forget()
    return path


def sequence(group, row: int, tokens: int, image: int) -> list[int]:
    """Token ids of a prompt up to the question's end, `tokens` image tokens a picture."""
    ids = group.head.tolist()
    for picture in range(group.pictures):
        ids += group.between.tolist() if picture else []
        ids += [image] * tokens
    return ids + group.tail[row, : int(group.last[row]) + 1].tolist()


def logits_of(study, method, plan, number):
    """Logits at the prompt's last token of every question of a part."""
    part = study.parts[number]
    draws = Draws(0, part.numbers)
    entering = study.start(method, plan, number, draws)
    rules = {}
    if plan.stages:
        rule = method.rule(draws, part.pictures)
        rules = {layer: (rule, keep) for layer, keep in plan.stages}
    hidden = study.decoder.run(entering, rules)[:, -part.tail.shape[1] :]
    rows = hidden[torch.arange(len(hidden)), part.last]
    return study.decoder.head(study.decoder.text.norm(rows))


@torch.inference_mode()
def test_ratio_1_is_hugging_face_and_right_means_greedy(study, folder):
    image = study.model.config.image_token_id
    for number, part in enumerate(study.parts):
        plan = CONTROL.plan(Budget(study.problems[part.pictures], 1.0))
        ours = logits_of(study, CONTROL, plan, number)
        ids = torch.tensor([sequence(part, 0, study.span, image)])
        pixels = study._pixels(number)[: part.pictures]
        theirs = study.model(input_ids=ids, pixel_values=pixels).logits[0, -1]
        torch.testing.assert_close(ours[0], theirs, atol=2e-4, rtol=1e-3)
        answer = study.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=pixels,
            max_new_tokens=3,
            do_sample=False,
        )[0, ids.shape[1] :]
        last = int(part.last[0])
        tail = part.tail[:1].clone()
        targets = part.targets[:1].clone()
        targets[:] = IGNORE
        targets[0, last : last + 3] = answer
        tail[0, last + 1 : last + 3] = answer[:2]
        row = dataclasses.replace(part.part(0, 1, CPU), tail=tail, targets=targets)
        entering = study.decoder.start(row, study.look(number).tokens[: part.pictures][None])
        hidden = study.decoder.run(entering, {})
        assert study.decoder.right(hidden, row).tolist() == [True]
        targets[0, last + 1] = (answer[1] + 1) % 100
        assert study.decoder.right(hidden, row).tolist() == [False]


@torch.inference_mode()
@pytest.mark.parametrize(
    "name",
    ["luvc", "paper", "oim share 0.5 match", "scope image", "signal raw", "oim", "band high"],
)
def test_luvc_is_what_the_product_runs(study, folder, name):
    method = METHODS[name]
    family = Family.load(str(folder))
    runner = TorchRunner(study.model, family, 96)
    image = study.model.config.image_token_id
    options = method.options or DEFAULTS
    for number, part in enumerate(study.parts):
        P = part.pictures
        plan = method.plan(Budget(study.problems[P], 2.0))
        schedule = Schedule(
            vision=plan.merges,
            language=tuple(Prune(layer=a, keep=b) for a, b in plan.stages),
            **options.scoring,
            match=options.match,
        )
        layout = plan_layout(family, image_geometry(family, None, P), 64, schedule).layout
        pixels = study._pixels(number)[:P].numpy()
        embeds = runner.vision(layout, pixels).reshape(1, layout.visual_tokens, -1)
        ids = np.array([sequence(part, 0, layout.tokens_per_image, image)])
        feed = PrefillFeed(
            ids,
            embeds,
            np.flatnonzero(ids[0] == image)[None],
            np.arange(ids.shape[1])[None],
            np.array([ids.shape[1] - 1]),
        )
        theirs = runner.prefill(layout, feed, runner.new_caches(layout, 1)).logits[0]
        implementation = study.model.config._attn_implementation
        study.model.set_attn_implementation("sdpa")
        ours = logits_of(study, method, plan, number)[0].numpy()
        study.model.set_attn_implementation(implementation)
        np.testing.assert_allclose(ours, theirs, atol=3e-4, rtol=1e-3)


@torch.inference_mode()
@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_what_its_plan_says(study, name):
    method = METHODS[name]
    plan = method.plan(Budget(study.problems[2], 2.0))
    number = next(n for n, part in enumerate(study.parts) if part.pictures == 2)
    draws, seen = Draws(0, study.parts[number].numbers), []

    def watch(entering):
        assert (entering.visual.diff(dim=1) > 0).all() and (
            entering.positions.diff(dim=1) > 0
        ).all()
        if method.renumber:
            assert (entering.positions.diff(dim=1) == 1).all()
        assert (
            entering.last[0]
            == entering.hidden.shape[1]
            - study.parts[number].tail.shape[1]
            + (study.parts[number].last[0])
        )
        seen.append(entering.visual.shape[1])

    rule, after = method.rule(draws, 2) if method.rule else None, None
    if isinstance(rule, tuple):
        rule, after = rule
    entering = study.start(method, plan, number, draws)
    rules = {layer: (rule, keep) for layer, keep in plan.stages}
    hidden = study.decoder.run(entering, rules, method.renumber, after, watch)
    assert np.mean(seen) == pytest.approx(plan.mean)
    assert torch.isfinite(hidden).all()


def test_random_choices_do_not_depend_on_the_batch(study):
    small = Study(study.model, questions.load("validation", 4, build_tokenizer()), CPU, batch=3)
    large = Study(study.model, questions.load("validation", 4, build_tokenizer()), CPU, batch=4)
    for name in ("random", "score random"):
        method = METHODS[name]
        plan = method.plan(Budget(study.problems[1], 2.0))
        kept = []
        for one in (small, large):
            rows = []
            for number, part in enumerate(one.parts):
                draws = Draws(1, part.numbers)
                entering = one.start(method, plan, number, draws)
                if method.rule:
                    rule = method.rule(draws, 1)
                    assert not isinstance(rule, tuple)  # nothing to be told after a layer
                    rows += rule(entering, plan.stages[0][1]).ordinals.tolist()
                else:
                    rows += entering.positions.tolist()
            kept.append(rows)
        assert kept[0] == kept[1] and kept[0][0] != kept[0][1]


def test_processes_draw_the_same_questions(tokenizer):
    here, there = (questions.load("validation", QUESTIONS, tokenizer, workers=n) for n in (0, 2))
    for one, other in zip(here, there, strict=True):
        assert one.tasks == other.tasks and torch.equal(one.targets, other.targets)
        assert np.array_equal(one.pixels, other.pixels)


def test_the_command_writes_everything(folder, tmp_path):
    command.run(
        folder,
        limit=3,
        ratio=[2.0],
        method=["luvc", "random", "signal raw"],
        device="cpu",
        batch=4,
        workers=0,
        output=tmp_path,
    )
    results = written(tmp_path)
    assert results.tasks.tolist() == ["colour", "shape", "count"]
    assert results.rows["random", 2.0].right.shape == (5, 3)
    data = json.loads((tmp_path / "spectrum.json").read_text())
    assert np.array(data["curves"]["SPU, cutoff 0.25"]).shape == (8, 144)
    assert np.allclose(np.mean(data["curves"]["SPU, cutoff 0.25"], axis=1), 1, atol=1e-4)
    assert not list(tmp_path.glob("*.partial.jsonl"))
    page = report.write(tmp_path, tmp_path / "docs")
    assert "| **luvc** |" in page and (tmp_path / "docs" / "spectrum.png").stat().st_size > 10_000


def test_a_stopped_run_goes_on(folder, tmp_path, monkeypatch):
    def run():
        command.run(
            folder,
            limit=2,
            ratio=[2.0],
            method=["luvc", "uniform", "random"],
            device="cpu",
            batch=4,
            workers=0,
            output=tmp_path,
        )

    asked, right = [], Study.right

    def stops(self, method, ratio, seed=0):
        asked.append(method.name)
        if len(asked) == 5:
            raise KeyboardInterrupt
        return right(self, method, ratio, seed)

    monkeypatch.setattr(Study, "right", stops)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert not (tmp_path / "accuracy_test.json").exists()
    partial = tmp_path / "accuracy.partial.jsonl"
    partial.write_text(partial.read_text() + '["half a li')
    run()
    assert asked == ["ratio 1", "luvc", "uniform", *["random"] * (SEEDS + 1)]  # one of them twice
    monkeypatch.setattr(Study, "right", right)
    stopped = written(tmp_path).data["rows"]
    run()
    assert written(tmp_path).data["rows"] == stopped


def test_another_runs_journal_is_begun_anew(tmp_path):
    path = tmp_path / "a.jsonl"
    for head, expected in (({"of": (1, 2)}, 1), ({"of": (1, 2)}, 1), ({"of": (1, 3)}, 2)):
        journal = Journal(path, head)
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
        assert (right == study.right(METHODS["paper spu"], ratio)).all()
