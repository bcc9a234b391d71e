"""The spectrum claim: LUVC's score does not lean to either end of the sequence, attention does.

At every layer of the unmodified model, each question's scores are regressed on the place (ordinary
least squares); the mean slope gets an interval over the questions. Without positional bias that holds
zero; attention scores are biased by causality and by distance.
"""

import numpy as np

from luvc.engines.bundle.schedule import ENERGY, Prune, Schedule, ScoreSpec
from luvc.exporter.planning.defaults import SPECTRUM

from .methods import CUTOFF, METHODS
from .plans import Budget
from .results import bootstrap_mean
from .study import Study

SCORES = {
    "SPU, the usual score": SPECTRUM,
    "SPU, energy": ENERGY,
    f"SPU, band low {CUTOFF:g}": ENERGY.having(cutoff=CUTOFF),
    "attention from the last token": ScoreSpec(name="fastv"),
    "attention from visual tokens": ScoreSpec(name="visual-attention"),
}


def scored(study: Study) -> dict[str, np.ndarray]:
    """Scores of all questions about one picture, float32 [L, questions, V], each with a mean of 1.

    A stage that keeps every token stands before each layer, so the graph tells its scores and goes on as
    the unmodified model.
    """
    problem = study.problems[1]
    V = problem.visual_tokens(())
    everywhere = tuple(Prune(layer=layer, keep=V) for layer in range(problem.decoder.layers))
    found = {}
    for name, score in SCORES.items():
        layout = study.layout(1, Schedule(language=everywhere, score=score))
        told = []
        for number, part in enumerate(study.parts):
            if len(part[0].pictures) == 1:
                caches = study.runner.new_caches(layout, len(part))
                stages = study.runner.prefill(layout, study.feed(number, layout), caches).stages
                told.append(np.stack([stages[layer].energies for layer in sorted(stages)]))
        values = np.concatenate(told, 1).astype(np.float64)
        found[name] = (values / values.mean(2, keepdims=True)).astype(np.float32)
    return found


def slope(values: np.ndarray) -> dict[str, float | bool]:
    """The mean least-squares line through scores [questions, V] over the places 0 .. V - 1.

    Returns:
        change: of the line from the first place to the last, as a part of the mean score; low, high:
        its 95 % interval, a bootstrap over questions; significant: that it does not hold zero.
    """
    V = values.shape[1]
    places = np.arange(V) - (V - 1) / 2
    change = bootstrap_mean((V - 1) * (values @ places) / (places @ places))
    return {
        "change": change.value,
        "low": change.low,
        "high": change.high,
        "significant": not change.low <= 0 <= change.high,
    }


def measure(study: Study) -> dict:
    """What benchmarks/results/spectrum.json holds: mean curves, rounded, and their slopes."""
    found = scored(study)
    return {
        "questions": sum(len(part) for part in study.parts if len(part[0].pictures) == 1),
        "stages": METHODS["luvc"].schedule(Budget(study.problems[1], 2.0)).scored,
        "curves": {name: np.round(v.mean(1), 5).tolist() for name, v in found.items()},
        "slopes": {name: [slope(layer) for layer in v] for name, v in found.items()},
    }
