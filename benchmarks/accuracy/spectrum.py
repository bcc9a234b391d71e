"""The spectrum claim: LUVC's score does not lean to either end of the sequence, attention does.

At every layer of the unmodified model, each question's scores are regressed on the place (ordinary
least squares); the mean slope gets an interval over the questions. Without positional bias that holds
zero; attention scores are biased by causality and by distance.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from .draws import Draws
from .language import LayerInput
from .methods import CUTOFF, METHODS
from .plans import Plan
from .results import bootstrap_mean
from .scores import energies, last_attention, visual_attention
from .study import CONTROL, Study

SCORES: dict[str, Callable[[LayerInput], torch.Tensor]] = {
    "SPU, cutoff 1": partial(energies, rho=1.0),
    f"SPU, cutoff {CUTOFF:g}": partial(energies, rho=CUTOFF),
    "attention from the last token": last_attention,
    "attention from visual tokens": visual_attention,
}


@torch.inference_mode()
def scored(study: Study) -> dict[str, np.ndarray]:
    """Scores of all questions about one picture, float32 [L, questions, V], each with a mean of 1."""
    L = study.problems[1].decoder.layers
    found: dict[str, list[list[np.ndarray]]] = {name: [[] for _ in range(L)] for name in SCORES}

    def watch(entering: LayerInput) -> None:
        for name, score in SCORES.items():
            values = score(entering).double()
            values = (values / values.mean(1, keepdim=True)).float().cpu().numpy()
            found[name][entering.number].append(values)

    for number, part in enumerate(study.parts):
        if part.pictures == 1:
            entering = study.start(CONTROL, Plan(study.span), number, Draws(0, part.numbers))
            study.decoder.run(entering, {}, watch=watch)
    return {name: np.stack([np.concatenate(v) for v in layers]) for name, layers in found.items()}


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
        "questions": sum(len(p.numbers) for p in study.parts if p.pictures == 1),
        "stages": [layer for layer, _ in _default_stages(study)],
        "curves": {name: np.round(v.mean(1), 5).tolist() for name, v in found.items()},
        "slopes": {name: [slope(layer) for layer in v] for name, v in found.items()},
    }


def _default_stages(study: Study) -> Sequence[tuple[int, int]]:
    from .plans import Budget

    stages = METHODS["luvc"].plan(Budget(study.problems[1], 2.0)).stages
    return [(layer, keep) for layer, keep in stages if keep]
