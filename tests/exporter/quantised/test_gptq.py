"""Calibrated codes against the paper's algorithm in numpy, without blocks and without Cholesky factors."""

import numpy as np
import pytest
import torch

from luvc.engines.bundle.manifest import Quantisation
from luvc.errors import LuvcError
from luvc.exporter.quantised.gptq import SHRUNKEN, calibrated
from luvc.exporter.quantised.rounding import Rounding

INT8 = Quantisation(kind="int8")
INT4 = Quantisation(kind="int4", group_size=16)
TOP = {"int8": 127, "int4": 7}


def material(n=24, k=160, tokens=400):
    """Weights, and inputs that hang together, as those of a model do."""
    random = np.random.default_rng(0)
    mixed = random.normal(size=(k, k)) * random.uniform(0.1, 2, size=(1, k))
    x = mixed @ random.normal(size=(k, tokens)) + random.normal(size=(k, 1))
    return random.normal(size=(n, k)), x


def nearest(w, step, top):
    return np.clip(np.rint(w / step), -top - 1, top)


def scale_of(group, importance, top):
    """The largest that has a code for every weight, or a smaller one that loses less; float32 [N]."""
    exact = np.maximum(group.max(1) / top, -group.min(1) / (top + 1))
    whole = exact.astype(np.float32)
    whole = np.where(whole < exact, np.nextafter(whole, np.float32(np.inf)), whole)
    tried = [(whole.astype(float) * part).astype(np.float32).astype(float) for part in SHRUNKEN]
    lost = [(nearest(group, s[:, None], top) * s[:, None] - group) ** 2 @ importance for s in tried]
    return np.choose(np.argmin(lost, 0), tried)


def by_the_paper(w, hessian, how):
    """Equations 2 and 3 of arXiv 2210.17323: a column is rounded, the rest makes up, the column is gone."""
    w, top = w.copy(), TOP[how.kind]
    size = how.group_size or w.shape[1]
    inverse = np.linalg.inv(hessian + 0.01 * np.diag(hessian).mean() * np.eye(len(hessian)))
    codes = np.zeros_like(w)
    steps = np.zeros((len(w), w.shape[1] // size))
    for j in range(w.shape[1]):
        if j % size == 0:
            group = slice(j, j + size)
            steps[:, j // size] = scale_of(w[:, group], np.diag(hessian)[group], top)
        step = steps[:, j // size]
        codes[:, j] = nearest(w[:, j], step, top)
        error = (w[:, j] - codes[:, j] * step) / inverse[j, j]
        w[:, j:] -= np.outer(error, inverse[j, j:])
        inverse = inverse - np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return codes, steps


def lost(w, x, codes, steps):
    return np.linalg.norm((w - codes * steps.repeat(w.shape[1] // steps.shape[1], 1)) @ x)


def run(w, hessian, how):
    found = calibrated(torch.tensor(w), torch.tensor(hessian), Rounding(how, torch.float32), "w")
    return found[0].double().numpy(), found[1].double().numpy()


@pytest.mark.parametrize("how", [INT8, INT4], ids=str)
def test_codes_are_the_papers(how):
    w, x = material()
    codes, steps = run(w, x @ x.T, how)
    wanted, sizes = by_the_paper(w, x @ x.T, how)
    assert steps.shape == sizes.shape and codes.min() >= -TOP[how.kind] - 1
    np.testing.assert_allclose(steps, sizes, rtol=1e-6)
    np.testing.assert_array_equal(codes, wanted)


@pytest.mark.parametrize("tokens", [400, 20])
@pytest.mark.parametrize("how", [INT8, INT4], ids=str)
def test_outputs_are_nearer_than_by_rounding_to_nearest(how, tokens):
    """With fewer tokens than inputs, too."""
    w, x = material(tokens=tokens)
    plan = Rounding(how, torch.float32)
    stored, scales = plan.encoded(torch.tensor(w))
    plain = plan.unpacked(stored).double().numpy(), scales.double().numpy().reshape(len(w), -1)
    assert lost(w, x, *run(w, x @ x.T, how)) < 0.8 * lost(w, x, *plain)


def test_inputs_that_were_never_seen_are_rounded_to_nearest():
    w, x = material()
    x[32:48] = 0
    codes, steps = run(w, x @ x.T, INT4)
    group = w[:, 32:48]
    np.testing.assert_array_equal(codes[:, 32:48], nearest(group, steps[:, 2:3], 7))
    nothing, _ = run(w, np.zeros_like(x @ x.T), INT4)
    stored, _ = Rounding(INT4, torch.float32).encoded(torch.tensor(w))
    np.testing.assert_array_equal(nothing, Rounding(INT4, torch.float32).unpacked(stored).numpy())


def test_inputs_that_are_no_numbers_are_refused():
    w, x = material()
    x[3, 5] = np.nan
    with pytest.raises(LuvcError, match="the inputs of w are NaN or infinite on these questions"):
        run(w, x @ x.T, INT4)
