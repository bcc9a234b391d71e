"""The study's choice of options, its page and its slopes, on made-up answers and on the committed results."""

import dataclasses
import json

import numpy as np
import pytest

from benchmarks.accuracy import choose, report, spectrum
from benchmarks.accuracy.methods import METHODS, MOVES, flat, moved
from benchmarks.accuracy.results import RESULTS, Results
from benchmarks.accuracy.study import CONTROL
from benchmarks.files import write_json
from luvc.exporter.planning.defaults import DEFAULTS, PAPER, SPECTRUM


def made_up(folder, wrong: dict[str, float], count: int = 1000) -> None:
    """Results in which a method errs on the first so many of the questions at every ratio."""
    rows = []
    for name, share in {"ratio 1": 0.0, **wrong}.items():
        for ratio in (1.0,) if name == "ratio 1" else (1.5, 2.0):
            method = CONTROL if name == "ratio 1" else METHODS[name]
            right = np.arange(count) >= share * count
            rows.append(
                {
                    "method": name,
                    "kind": method.kind,
                    "note": method.note,
                    "ratio": ratio,
                    "seed": 0,
                    "mean": {"1": 72.0},
                    "right": np.packbits(right).tobytes().hex(),
                }
            )
    head = {
        "date": "d",
        "device": "x",
        "torch": "t",
        "checkpoint": "c" * 64,
        "trained": {"minutes": 19.4},
        "visual_tokens": 144,
    }
    data = head | {
        "tasks": ["ocr" if n % 10 == 5 else "colour" for n in range(count)],
        "rows": rows,
    }
    write_json(folder / "accuracy_test.json", data)


def answers(options) -> dict:
    """Made up: a wide low-pass and, with it, no OIM help; a narrow one has no plan at 3x."""
    score = options.score.options
    cutoff = score["cutoff"] if score["band"] == "low" else 0.2
    wrong = 400 - 300 * cutoff
    wrong += 100 * options.oim_share if cutoff > 0.5 else -100 * options.oim_share
    wrong += options.keeps == "geometric"  # one question: too little to be sure of
    right = np.arange(1000) >= round(wrong)
    return {r: right for r in choose.RATIOS if r < 3 or cutoff > 0.05}


def test_the_choice_moves_only_what_surely_wins(tmp_path):
    tasks = np.array(["ocr" if n % 10 == 5 else "colour" for n in range(1000)])
    rounds = list(choose.search(answers, tasks))
    assert [r.start for r in rounds] == [
        PAPER,
        PAPER.with_score(cutoff=1.0),
        dataclasses.replace(PAPER.with_score(cutoff=1.0), oim_share=0.0),
    ]
    assert rounds[-1].end == rounds[-1].start and not any(v.moved for v in rounds[-1].tried)
    best = rounds[0].tried[0].overall
    gained = answers(rounds[1].start)[2.0].mean() - answers(PAPER)[2.0].mean()
    assert best is not None and best.value == pytest.approx(gained) and 0 < best.low < gained
    assert len(rounds[0].tried) == sum(len(values) - 1 for values in MOVES.values())
    narrow = next(v for v in rounds[0].tried if v.name == "filter low 0.05")
    assert narrow.overall is None  # it has no plan at 3x
    head = {"date": "d", "tasks": tasks.tolist()}
    write_json(tmp_path / "accuracy_choice.json", choose.as_json(rounds, head))
    page = report.write(tmp_path, tmp_path)
    assert "| 1 | the paper's reading | filter low 1 | +" in page
    assert "| 3 | the paper's reading, filter low 1, oim share 0 | nothing | +0.1" in page
    assert "| filter low 0.05 | no plan | no plan |" in page


def test_the_defaults_are_what_was_chosen():
    chosen = json.loads((RESULTS / "accuracy_choice.json").read_text())["chosen"]
    older = {"band": "low", "elimination": "last", "smaller": "none"}  # than the choice of these
    older |= {"restore": False, "tower_ratio": 1.0}
    energy = moved(DEFAULTS, "filter", ("low", 1.0))
    assert json.loads(json.dumps(flat(energy))) == older | chosen


def test_the_default_score_is_nowhere_worse_than_the_energy():
    results = Results.read("validation")
    assert results is not None and results.ratios == [2, 3, 4] and len(results.tasks) >= 1000
    for ratio in results.ratios:
        ours = results.rows["luvc", ratio]
        assert ours.fields["schedule"]["score"]["options"] == SPECTRUM.options
        assert results.gain(ours, results.rows["energy", ratio]).high > 0


def test_the_page_tells_goals_that_are_not_reached(tmp_path):
    made_up(tmp_path, {"luvc": 0.002, "random": 0.2, "divprune": 0.02})
    page = report.write(tmp_path, tmp_path)
    assert "overall: at most 1 point lost at 2x: reached (-0.2" in page
    assert "overall: above every baseline and method at 2x: reached" in page
    made_up(tmp_path, {"luvc": 0.05, "random": 0.2, "divprune": 0.02})
    page = report.write(tmp_path, tmp_path)
    assert "overall: at most 1 point lost at 2x: **not reached** (-5.0" in page
    assert "**not reached**; not surely above divprune (-3.0" in page
    made_up(tmp_path, {"luvc": 0.0095, "random": 0.2})
    page = report.write(tmp_path, tmp_path)
    assert "overall: at most 1 point lost at 2x: **undecided**" in page


def test_without_results_the_page_holds_no_figure(tmp_path):
    page = report.write(tmp_path / "nothing", tmp_path)
    assert "Nothing has been measured yet" in page and page.count("Not measured yet") == 3
    assert "%" not in page.split("## What is compared")[0].replace("95 %", "")


def test_the_committed_page_is_that_of_the_results(tmp_path):
    committed = (report.DOCS / "accuracy.md").read_text()
    assert report.write(docs=tmp_path) == committed, "run: python -m benchmarks.accuracy.report"


def test_committed_rows_are_of_todays_methods():
    results = Results.read("test")
    assert results is not None and "drop-all" in {name for name, _ in results.rows}
    assert {name for name, _ in results.rows} <= {*METHODS, CONTROL.name}


def test_slopes_of_known_curves():
    noise = 0.1 * np.random.default_rng(0).standard_normal((50, 144))
    flat, tilted = spectrum.slope(1 + noise), spectrum.slope(np.linspace(0.8, 1.2, 144) + noise)
    assert not flat["significant"] and abs(flat["change"]) < 0.02
    assert tilted["significant"] and tilted["low"] < 0.4 < tilted["high"]
    lines = np.polyfit(np.arange(144), (1 + noise).T, 1)[0] * 143
    assert flat["change"] == pytest.approx(np.mean(lines))
