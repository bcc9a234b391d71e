"""The spectrum claim: LUVC's score does not lean to either end of the sequence, attention does.

At every layer of the unmodified model, the mean score of each visual token's place over many questions
is regressed on the place (ordinary least squares). A score without positional bias has a slope that is
not significant; attention scores are biased by causality and by distance.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from luvc.exporter.problem import DEFAULTS
from luvc.plugins.spectrum.contract import cutoff_bin
from luvc.plugins.spectrum.reference import spectrum_score, twiddle

from .language import State
from .methods import METHODS
from .plans import Plan
from .scores import last_attention, visual_attention
from .study import CONTROL, Study

LEVEL = 0.05
"""A slope with a smaller p is called significant."""


def energy(state: State) -> torch.Tensor:
    """The SPU's score, float32 [B, V]."""
    V = state.visual.shape[1]
    score = spectrum_score(
        state.normed(), state.visual, twiddle(V), cutoff_bin(DEFAULTS.cutoff, V), 1
    )
    return score[:, 0]


SCORES: dict[str, Callable[[State], torch.Tensor]] = {
    "spectrum": energy,
    "attention from the last token": last_attention,
    "attention from visual tokens": visual_attention,
}


@torch.inference_mode()
def curves(study: Study) -> dict[str, np.ndarray]:
    """Mean score by layer and place, float64 [L, V], over all questions about one picture.

    Each question's scores are divided by their mean first, so that all weigh the same.
    """
    L = study.problems[1].decoder.layers
    sums = {name: np.zeros((L, study.span)) for name in SCORES}
    count = 0

    def watch(state: State) -> None:
        for name, score in SCORES.items():
            values = score(state).double()
            sums[name][state.number] += (values / values.mean(1, keepdim=True)).sum(0).cpu().numpy()

    for number, part in enumerate(study.parts):
        if part.pictures == 1:
            state = study.start(CONTROL, Plan(study.span), number, torch.Generator())
            study.decoder.run(state, {}, watch=watch)
            count += len(part.numbers)
    return {name: total / count for name, total in sums.items()}


def slope(curve: Sequence[float] | np.ndarray) -> dict[str, float | bool]:
    """Least-squares line through a curve over the places 0 .. V - 1.

    Returns:
        change: of the line from the first place to the last, as a part of the mean; p: of a slope of
        zero (two-sided t test); significant: p below LEVEL.
    """
    from scipy.stats import linregress

    y = np.asarray(curve, float)
    line = linregress(np.arange(len(y)), y)
    change = line.slope * (len(y) - 1) / y.mean()
    return {
        "change": float(change),
        "p": float(line.pvalue),
        "significant": bool(line.pvalue < LEVEL),
    }


def measure(study: Study) -> dict:
    """What benchmarks/results/spectrum.json holds: curves, rounded, and their slopes."""
    found = curves(study)
    return {
        "questions": sum(len(p.numbers) for p in study.parts if p.pictures == 1),
        "stages": [layer for layer, _ in _default_stages(study)],
        "curves": {name: np.round(c, 5).tolist() for name, c in found.items()},
        "slopes": {name: [slope(layer) for layer in c] for name, c in found.items()},
    }


def _default_stages(study: Study) -> Sequence[tuple[int, int]]:
    from .plans import Budget

    stages = METHODS["luvc"].plan(Budget(study.problems[1], 2.0)).stages
    return [(layer, keep) for layer, keep in stages if keep]
