"""Weights that the formats' own libraries quantised are what these libraries make of them, bit for bit.

make_fixtures.py says how the files were made; the libraries need other versions of PyTorch and
transformers than this project, so they are not installed where tests run.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from luvc.exporter.checkpoint.quantised.formats import format_of
from luvc.exporter.checkpoint.quantised.weights import QuantisedWeights

FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("*.safetensors"))


def opened(file):
    """The reader of a fixture, without the library's numbers, and these."""
    with safe_open(file, "pt") as made:
        numbers = made.get_tensor("numbers")
        config = json.loads(made.metadata()["quantization_config"])
    return QuantisedWeights(format_of(config, "here"), [file], numbers.dtype), numbers


@pytest.mark.parametrize("file", FIXTURES, ids=lambda file: file.stem)
def test_numbers_are_the_librarys(file):
    weights, numbers = opened(file)
    found = weights.numbers("linear.weight")
    assert tuple(found.shape) == weights.shape("linear.weight") == tuple(numbers.shape)
    assert torch.equal(found, numbers)
    assert set(weights.plain) == {"numbers"} and not weights.unread


def test_every_format_has_a_fixture():
    methods = {opened(file)[0].format.about.split()[0].strip(",") for file in FIXTURES}
    assert methods == {"AWQ", "GPTQ", "compressed-tensors", "FP8", "bitsandbytes"}
    assert len(FIXTURES) == 25
