"""luvc-tune's search: a planted optimum is found, noise is not, and what it tries, splits and says."""

import numpy as np
import pytest

from luvc.errors import LuvcError
from luvc.exporter.planning.defaults import SolverOptions
from luvc.tools.eval.intervals import Share
from luvc.tools.eval.items import Item, read_jsonl
from luvc.tools.tune.candidates import Candidate, first_round, moves, of_method
from luvc.tools.tune.outcome import Held, verdict
from luvc.tools.tune.search import search
from luvc.tools.tune.split import split
from luvc.tools.workbench import Cost


class MadeUp:
    """Losses of options as a function says, with noise of every question and of every pair.

    Args:
        worse: what options lose beside the noise.
        noise: how much of it is a candidate's own.
        seed: of the noise.
    """

    parts = 3

    def __init__(self, worse, noise: float, seed: int = 0):
        self.worse, self.noise = worse, noise
        self.seed = seed
        self.asked: list[tuple[str, int]] = []

    def key(self, candidate: Candidate) -> str:
        if candidate.options.keeps == "linear":
            raise LuvcError("no plan")
        return repr(candidate.options)

    def loss(self, candidate: Candidate, part: int) -> np.ndarray:
        self.asked.append((self.key(candidate), part))
        question = np.random.default_rng((self.seed, part)).exponential(0.2, 40)
        own = sum(map(ord, self.key(candidate)))
        random = np.random.default_rng((self.seed, part, own)).exponential(self.noise, 40)
        return question + random + self.worse(candidate.options)


def planted(options: SolverOptions) -> float:
    """Best is band high at a cutoff of 0.1, stages at a quarter and half, a little OIM."""
    of = options.score.options
    away = 0.0 if options.score.name == "spectrum" else 1.0
    away += 0.5 * (of.get("band") != "high") + abs(float(of.get("cutoff", 1.0)) - 0.1)
    away += 0.4 * (options.stages != (0.25, 0.5)) + abs(options.oim_share - 0.25)
    return away


def test_a_planted_optimum_is_found():
    start = of_method("luvc")
    measure = MadeUp(planted, 0.05)
    rounds = list(search(measure, start, first_round(None), moves, 8))
    end = rounds[-1].end.options
    assert planted(end) == 0 and rounds[-1].end is rounds[-1].start
    assert all(t.gain.low > 0 for r in rounds for t in r.tried if t.taken)
    losses = [r.loss for r in rounds]
    assert losses == sorted(losses, reverse=True) and len(rounds) < 8
    assert {c.name.rpartition(", ")[2] for c, _ in rounds[-1].refused} == {"keeps linear"}
    of_part = [len({key for key, part in measure.asked if part == p}) for p in range(3)]
    assert of_part[0] > 2 * of_part[2], "most leave behind the first part"


def test_noise_moves_nothing():
    """Of rounds in which all are alike a tenth move, as `race` says; here forty plans, thirty rounds."""
    start, moved = of_method("luvc"), 0
    for seed in range(15):
        rounds = list(search(MadeUp(lambda _: 0.0, 0.3, seed), start, first_round(None), moves, 2))
        whole = rounds[1].start.options.smaller == "none"  # a smaller grid has nothing to move
        assert len(rounds[1].tried) > 30 or not whole
        moved += sum(r.end is not r.start for r in rounds)
    assert moved <= 6


def test_rounds_end_where_they_are_told_to():
    rounds = list(search(MadeUp(planted, 0.0), of_method("luvc"), first_round(None), moves, 2))
    assert len(rounds) == 2 and planted(rounds[-1].end.options) > 0


def test_what_is_tried_is_what_there_is():
    names = [c.method for c in first_round(None)]
    assert names[0] == "luvc" and {"pool", "divprune", "visionzip"} <= set(names)
    assert not {"random", "downsample", "fastv"} & set(names)
    assert "fastv" in [c.method for c in first_round("uniform, fastv")]
    assert moves(of_method("pool")) == [], "it has no options"
    tried = moves(of_method("visiondrop"))
    words = [" ".join(c.moved[-1]) for c in tried]
    assert {"stages 0.25", "keeps linear", "score spectrum", "OIM share 0.5, matched"} <= set(words)
    assert len(set(words)) == len(words) and "merged 0.142857" not in words
    energy = of_method("luvc").having("band", "low", of_method("energy").options)
    assert energy.having("band", "high", energy.options).name == "luvc, band high"
    assert energy.having("score", "pact", energy.options).name == "luvc, score pact"
    bands = [c.options.score for c in moves(of_method("luvc")) if c.moved[-1][0] == "band"]
    assert {s.options["band"] for s in bands} == {"low", "high"}
    assert {s.options["cutoff"] for s in bands if s.options["band"] == "high"} >= {0.0, 0.25}


def test_questions_about_one_picture_stay_together(data):
    items = read_jsonl(data, None)
    more = [Item(f"{i.id}-{n}", "", "q", (), i.images) for i in items for n in range(3)]
    tied = Item("tied", "", "q", (), (*items[0].images, *items[1].images))
    parts, held = split([*more, tied])
    tuning = [item for part in parts for item in part]
    homes = [{image for item in run for image in item.images} for run in (tuning, held)]
    assert not homes[0] & homes[1] and 9 <= len(held) <= 12 and len(parts) == 3
    assert sorted(i.id for part in (*parts, held) for i in part) == sorted(
        i.id for i in (*more, tied)
    )
    assert split([*more, tied]) == (parts, held)
    with pytest.raises(LuvcError, match="8 questions are too few"):
        split(items[:8])
    with pytest.raises(LuvcError, match="share too few pictures"):
        split([Item(str(n), "", "q", (), items[0].images) for n in range(20)])


def row(name: str, *less: float) -> Held:
    any_share = Share(0.5, 0.4, 0.6)
    loss = Share(0.1 + less[0], 0.0, 1.0)
    return Held(name, Cost(1, 1, 1, 1), loss, Share(*less), any_share, None)


@pytest.mark.parametrize(
    ("less", "words"),
    [
        ((0.2, 0.1, 0.3), "tuned is surely nearer to the unmodified model than the default"),
        ((0.2, -0.1, 0.3), "tuned is not surely better than the default"),
        ((-0.2, -0.3, -0.1), "surely WORSE than the default"),
        ((0.0, 0.0, 0.0), "nothing was surely better than the default"),
    ],
)
def test_the_verdict_is_that_of_the_questions_held_out(less, words):
    assert words in verdict([row("tuned", 0, 0, 0), row("luvc", *less)])
    assert "no plan at this ratio" in verdict([row("tuned", 0, 0, 0), row("random", *less)])
