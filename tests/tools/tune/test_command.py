"""luvc-tune as people type it: what it writes, how it goes on, and what is refused, there and at export."""

import json
import re
from collections.abc import Sequence

import pytest

from luvc.engines.bundle.folder import Bundle
from luvc.exporter import cli as export
from luvc.exporter import cli_plan as plan
from luvc.exporter.planning.schedule_file import Tuned, read_schedule
from luvc.tools.eval.answering import BundleAnswerer
from luvc.tools.report import templates
from luvc.tools.tune import cli as tune
from luvc.tools.tune import probe

from ...conftest import TINY
from .conftest import RATIO

SHORT = ("--max-new-tokens", 3, "--batch", 4, "--text-tokens", 8, "--ratio", RATIO)
FEW = ("--methods", "divprune,uniform,pool", "--rounds", 2)
pytestmark = pytest.mark.xdist_group("tune")  # what one test measures, others read


@pytest.fixture(scope="module")
def run(model, data, tmp_path_factory):
    """A run's folder, and whom it asked about what, in order."""
    target, asked = tmp_path_factory.mktemp("tuned") / "out", []
    loss, answer = probe.Probe.loss, BundleAnswerer.answer

    def measured(self, plans, part):
        asked.append(("loss", [item.id for item in self.parts[part]]))
        return loss(self, plans, part)

    def answered(self, batch):
        asked.append(("answer", [item.id for item in batch.items]))
        return answer(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe.Probe, "loss", measured)
        patch.setattr(BundleAnswerer, "answer", answered)
        tune.tune(
            str(model),
            data=data,
            ratio=f"{RATIO}x",
            methods=FEW[1],
            rounds=2,
            text_tokens=8,
            batch=4,
            max_new_tokens=3,
            output=target,
        )
    return target, asked


def results(folder) -> dict:
    return json.loads((folder / "tune.json").read_text())


def test_what_is_reported_was_never_looked_at_before(run):
    folder, asked = run
    questions = {name: set(ids) for name, ids in results(folder)["questions"].items()}
    assert len(questions["held_out"]) == 4 and not questions["held_out"] & questions["tuned_on"]
    kinds = [bool(set(ids) & questions["held_out"]) for _, ids in asked]
    first = kinds.index(True)
    assert first > 10 and all(kinds[first:]), "all of the search comes before"
    assert not any(set(ids) & questions["tuned_on"] for _, ids in asked[first:])


def test_the_choice_stands_beside_the_others(run):
    found = results(run[0])
    held = {row["name"]: row for row in found["held_out"]}
    assert list(held) == ["tuned", "luvc", "random"]
    assert found["refused"][0].startswith("downsample: ratio 1.5x is not feasible")
    assert all(RATIO <= row["prefill"] <= 1.02 * RATIO for row in held.values())
    for row in held.values():
        less = row["loss"]["value"] - held["tuned"]["loss"]["value"]
        assert row["less"]["value"] == pytest.approx(less, abs=1e-12)
        assert row["right"] == found["unmodified_right"] == held["luvc"]["right"]  # none is right
    assert found["rounds"][0]["start"] == "luvc"
    assert {"divprune", "uniform", "pool"} >= {t["name"] for t in found["rounds"][0]["tried"]}
    page = (run[0] / "tune.html").read_text()
    assert found["chosen"]["name"] in page and found["command"] in page.replace("&#39;", "'")
    assert not re.search(r'(src|href)="(?!#)', page) and templates.STYLE.read_text()[:40] in page


def test_a_run_goes_on_where_it_was(command, run, model, data, tmp_path, monkeypatch):
    folder, _ = run
    target = tmp_path / "out"
    target.mkdir()
    lines = (folder / tune.JOURNAL).read_text().splitlines()
    (target / tune.JOURNAL).write_text(
        "\n".join((*lines[:-1], lines[-1][:20]))
    )  # killed while it wrote
    asked = []
    plain = probe.Probe.loss, BundleAnswerer.answer
    monkeypatch.setattr(probe.Probe, "loss", lambda s, *a: asked.append(a) or plain[0](s, *a))
    monkeypatch.setattr(BundleAnswerer, "answer", lambda s, b: asked.append(b) or plain[1](s, b))
    given = (model, "--data", data, *FEW, *SHORT, "--output", target)
    result = command(tune, *given)
    assert result.code == 0, result.err
    assert len(asked) == 1, "what was half written, and nothing else"
    assert (target / "schedule.json").read_text() == (folder / "schedule.json").read_text()
    old, new = results(folder), results(target)
    assert new.pop("command") != old.pop("command") and new == old
    assert "luvc-export --model" in result.out and "Export with it" in result.out
    other = command(tune, *given, "--limit", 10)
    assert other.code == 2 and "holds the results of another run" in other.err


def test_the_schedule_is_exported_and_refused_elsewhere(command, run, model, workshop, tmp_path):
    file = run[0] / "schedule.json"
    given = ("--schedule", file, "--text-tokens", 8, "--text-capacity", 96)
    made = command(
        export, "--model", model, *given, "--no-validate", "--output", tmp_path / "bundle"
    )
    assert made.code == 0, made.err
    tuned = read_schedule(file)
    assert isinstance(tuned, Tuned)
    (layout,) = Bundle.load(tmp_path / "bundle").manifest.layouts
    wanted = tuned.layouts[layout.name]
    assert layout.schedule.language == wanted.language and layout.schedule.score == wanted.score
    assert layout.schedule.vision == wanted.vision and layout.ratios.prefill >= RATIO
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps({"tuned_for": {"model": "m"}, "layouts": {}}))
    bad = command(plan, "--model", model, "--schedule", broken)
    assert bad.code == 2 and "tuned_for.config: Field required" in bad.err
    two = command(plan, "--model", model, *given, "--images", 2)
    assert (
        two.code == 2 and "tuned for layouts 168x168, and this is layout 168x168-2images" in two.err
    )
    shallow = workshop.checkpoint(**TINY | {"layers": 3}, text="qwen2")
    other = command(plan, "--model", shallow, *given)
    assert other.code == 2 and f"tuned for {model.resolve()}, and {shallow} is another" in other.err
    copy = tmp_path / "fine tuned"
    copy.mkdir()
    for path in model.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert command(plan, "--model", copy, *given).code == 0, "a moved checkpoint is the same"
    with (copy / "model.safetensors").open("r+b") as weights:
        weights.seek(-8, 2)
        weights.write(b"\0" * 8)
    changed = command(export, "--model", copy, *given, "--output", tmp_path / "second")
    assert changed.code == 2 and "is another model (other weights)" in changed.err
    assert not (tmp_path / "second").exists()


def edited(data, folder, change) -> Sequence[str]:
    """The questions, changed, as an option."""
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    for line in lines:
        line["image"] = str(data.parent / line["image"])
    change(lines)
    path = folder / "changed.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return "--data", str(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[3].pop("answer"), "11 of 12 questions have an answer"),
        (lambda lines: lines[3].update(image=None, images=[]), "a question has no picture"),
        (lambda lines: lines.__delitem__(slice(8, None)), "8 questions are too few"),
        (lambda lines: lines[3].update(image="none.png"), "there is no image"),
    ],
)
def test_bad_data_is_refused_before_a_weight_is_read(
    command, model, data, tmp_path, change, message
):
    given = edited(data, tmp_path, change)
    result = command(tune, model, *given, "--output", tmp_path / "out", *SHORT)
    assert result.code == 2 and message in result.err and result.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--methods", "magic"), "no method is called 'magic'"),
        (("--methods", "downsample"), "--methods downsample: it changes the picture"),
        (("--ratio", "1"), "--ratio 1 compresses nothing"),
        (("--ratio", "fast"), "is not a number"),
        (("--match", "near"), "is not one of exact, loose"),
        (("--image-size", "wide"), "is not HEIGHTxWIDTH"),
        (("--output", __file__), "is no folder"),
    ],
)
def test_bad_options_are_refused_in_one_line(command, model, data, tmp_path, options, message):
    result = command(tune, model, "--data", data, "--output", tmp_path / "out", *options)
    assert result.code == 2 and message in result.err and result.err.count("\n") == 1


def test_a_ratio_that_nothing_reaches_is_refused(command, model, data, tmp_path):
    given = ("--data", data, "--output", tmp_path / "out", *SHORT, "--ratio", 50)
    result = command(tune, model, *given, "--methods", "uniform")
    assert result.code == 2 and "ratio 50x is not feasible" in result.err
