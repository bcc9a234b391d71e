"""Weights that stay as they are stored: results are those of the model in float32, bit for bit."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from luvc.exporter.check.streamed import stream, why_streamed
from luvc.exporter.check.torch_runner import TorchRunner, convert
from luvc.exporter.checkpoint.weights import load_model

from .gallery import BRIEF, exported, pictures, question, size_of

SIZE = (112, 112)
QUICK = ("internvl", "ovis2", "gemma3", "qwen3_vl")
"""A plain one, a table read as such, a scaled embedding, one whose tower taps layers."""


def widths(model) -> dict[torch.dtype, int]:
    """Weights of each type."""
    found: dict[torch.dtype, int] = {}
    for parameter in model.parameters():
        found[parameter.dtype] = found.get(parameter.dtype, 0) + parameter.numel()
    return found


@pytest.mark.parametrize("name", exported(*QUICK))
def test_results_are_those_of_float32(gallery, name):
    vlm = gallery.in_pytorch(name, schedule=BRIEF)
    family = gallery.family(name)
    half = convert(load_model(family), torch.device("cpu"), torch.bfloat16)
    whole = TorchRunner(copy.deepcopy(half), family, 96)
    lean = TorchRunner(stream(half), family, 96)
    kept = widths(lean.model)
    assert kept[torch.bfloat16] > kept.get(torch.float32, 0), "most weights stay as they are stored"
    assert torch.bfloat16 not in widths(whole.model)
    (picture,) = pictures(size_of(name) or SIZE, 1)
    prompt = vlm.processor.prompt(question([picture]))
    found = []
    for vlm.runner in (whole, lean):
        embeds, timing = vlm.embed([prompt])
        rows, result, _ = vlm.prefill([prompt], (embeds, timing))
        found.append((embeds, result.logits, rows.step([[7]])))
    for ours, wanted in zip(*found, strict=True):
        assert ours.dtype == np.float32 and np.array_equal(ours, wanted)


def test_only_a_model_that_memory_does_not_hold_is_streamed(monkeypatch):
    model = nn.Linear(1000, 1000, dtype=torch.bfloat16)
    for free, wanted in ((8e6, False), (5e6, True)):
        monkeypatch.setattr("luvc.exporter.check.streamed.free_memory", lambda free=free: free)
        assert bool(why_streamed(model)) == wanted
        assert not why_streamed(model.__class__(1000, 1000)), "float32 stays in its files anyway"
