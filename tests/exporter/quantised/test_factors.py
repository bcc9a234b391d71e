"""Factors of channels in a file: what is written is read, and moves what it says."""

import numpy as np
import pytest
import torch

from luvc.engines.bundle.manifest import Quantisation
from luvc.exporter.quantised.factors import Factors, read_factors
from luvc.exporter.quantised.rounding import Rounding

LAYERS, D = "model.layers", 4
HOW = Rounding(Quantisation(kind="int8"), torch.float32)
INPUTS = ("q_proj", "k_proj", "v_proj")
SHAPES = {"q_proj": (16, 8), "k_proj": (8, 8), "v_proj": (8, 8), "o_proj": (8, 16)}  # [N, K]


def attention(layer):
    return f"{LAYERS}.{layer}.self_attn"


def norm(layer):
    return f"{LAYERS}.{layer}.input_layernorm"


@pytest.fixture
def factors():
    """Of two layers: of a norm, and of values whose heads two queries share."""
    made = Factors(D)
    for i in range(2):
        made.add(norm(i), [f"{attention(i)}.{leaf}" for leaf in INPUTS], torch.rand(8) + 0.5)
        made.add(f"{attention(i)}.v_proj", [f"{attention(i)}.o_proj"], torch.rand(8) + 0.5)
    return made


def stored(layers):
    shapes: dict[str, tuple[int, ...]] = {f"{norm(i)}.weight": (8,) for i in range(layers)}
    for i in range(layers):
        for leaf, (n, k) in SHAPES.items():
            shapes[f"{attention(i)}.{leaf}.weight.codes"] = (k, n)
    return shapes


@pytest.mark.parametrize("layers", [1, 2])
def test_what_is_written_is_read(factors, tmp_path, layers):
    """A bundle of the first layers has theirs alone."""
    modules = {
        name.removesuffix(".weight").removesuffix(".weight.codes") for name in stored(layers)
    }
    factors.write(tmp_path / "factors", modules)
    found = read_factors(tmp_path / "factors", stored(layers), HOW, LAYERS, D)
    assert found.sources.keys() == {n for n in factors.sources if int(n.split(".")[2]) < layers}
    assert all(torch.equal(f, factors.sources[n]) for n, f in found.sources.items())
    assert found.readers == {n: s for n, s in factors.readers.items() if s in found.sources}


def test_nothing_is_written_of_nothing(tmp_path):
    Factors(D).write(tmp_path / "factors", ())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("leaf", SHAPES)
def test_the_function_stays(factors, leaf):
    """What a product is given is divided; its outputs are what they were, or divided, too."""
    generator = np.random.default_rng(0)
    weight, x = generator.normal(size=SHAPES[leaf]), generator.normal(size=SHAPES[leaf][1])
    normed = factors.sources[norm(0)].numpy()
    values = factors.sources[f"{attention(0)}.v_proj"].numpy()
    heads = np.concatenate([values[:D], values[:D], values[D:], values[D:]])
    given = x / (heads if leaf == "o_proj" else normed)
    scaled = factors.scaled(f"{attention(0)}.{leaf}.weight", torch.from_numpy(weight))
    wanted = weight @ x / (values if leaf == "v_proj" else 1)
    np.testing.assert_allclose(scaled.numpy() @ given, wanted, rtol=1e-5)
