"""PyTorch as a runner: its dtypes, what it keeps between calls, and that nothing of it leaks."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from luvc.engines.backends.base import StepFeed
from luvc.engines.bundle.schedule import ENERGY, Prune, Schedule
from luvc.exporter.check.torch_runner import TorchRunner, convert
from luvc.exporter.checkpoint.family import Family
from luvc.exporter.language.graphs import PrefillGraph
from luvc.exporter.layouts.planned import image_geometry, plan_layout
from luvc.exporter.ops import attention

from ..feeds import random_feed

V = 36
TEXT = 10
CPU = torch.device("cpu")
SCHEDULE = Schedule(
    ratio=2,
    score=ENERGY.having(cutoff=0.4),
    language=(Prune(layer=1, keep=20), Prune(layer=3, keep=0)),
)


@pytest.fixture(scope="module")
def checkpoint(workshop):
    return str(workshop.checkpoint(layers=4, vision_layers=2, image=168))


def model_of(checkpoint):
    return AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()


def runner_of(checkpoint, **options):
    return TorchRunner(model_of(checkpoint), Family.load(checkpoint), 32, **options)


def feed(batch=2):
    return random_feed(V, TEXT, batch)


def answer(runner, layout, **options):
    """Logits of a prompt and of the token after it, and what the stage kept."""
    caches = runner.new_caches(layout, 2)
    result = runner.prefill(layout, feed(), caches, **options)
    place = np.full((2, 1), V + TEXT)
    token = StepFeed(place * 0 + 7, place, np.full(2, TEXT), np.zeros(2, np.int64))
    return result.logits, runner.step(layout, token, caches), result.stages


def test_half_precision_is_near_float32(checkpoint):
    wanted = runner_of(checkpoint)
    layout = plan_layout(wanted.family, image_geometry(wanted.family), 8, SCHEDULE).layout
    reference = answer(wanted, layout)
    for dtype, limit in ((torch.float16, 0.01), (torch.bfloat16, 0.08)):
        runner = runner_of(checkpoint, dtype=dtype)
        caches = runner.new_caches(layout, 1)
        assert {c.dtype for c in caches.values()} == {dtype}
        assert str(dtype).removeprefix("torch.") in runner.description
        kept = {1: reference[2][1].kept}
        found = answer(runner, layout, kept=kept)
        for ours, theirs in zip(found[:2], reference[:2], strict=True):
            assert ours.dtype == np.float32
            assert np.abs(ours - theirs).max() < limit * np.abs(theirs).max()
        pixels = np.random.default_rng(1).normal(size=layout.pixel_shape).astype(np.float32)
        seen, exact = runner.vision(layout, pixels), wanted.vision(layout, pixels)
        assert np.abs(seen - exact).max() < limit * np.abs(exact).max()


def test_weights_are_rounded_and_rotary_frequencies_are_not(checkpoint):
    exact = model_of(checkpoint)
    model: Any = convert(model_of(checkpoint), CPU, torch.bfloat16)
    for (name, a), b in zip(exact.named_buffers(), model.buffers(), strict=True):
        assert torch.equal(a, b), name
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.lm_head.weight is model.get_input_embeddings().weight  # still one tensor
    back = convert(model, CPU, torch.float32)
    for a, b in zip(exact.parameters(), back.parameters(), strict=True):
        assert torch.equal(a.bfloat16().float(), b)


def test_graphs_are_built_once_and_forced_tokens_are_forgotten(checkpoint):
    runner = runner_of(checkpoint)
    geometry = image_geometry(runner.family)
    layout = plan_layout(runner.family, geometry, 8, SCHEDULE).layout
    first = answer(runner, layout)
    graph = runner.graph(PrefillGraph, layout)
    forced = answer(runner, layout, kept={1: np.tile(np.arange(20), (2, 1))})
    assert np.abs(forced[0] - first[0]).max() > 1e-3
    for a, b in zip(first[:2], answer(runner, layout)[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    assert runner.graph(PrefillGraph, layout) is graph
    assert runner.graph(PrefillGraph, layout.model_copy(deep=True)) is graph
    other = plan_layout(runner.family, geometry, 8, Schedule()).layout  # of the same name
    assert runner.graph(PrefillGraph, other) is not graph


def test_host_copies_of_caches_stay_as_they_were(checkpoint):
    runner = runner_of(checkpoint)
    layout = plan_layout(runner.family, image_geometry(runner.family), 8, Schedule()).layout
    caches = runner.new_caches(layout, 2)
    runner.prefill(layout, feed(), caches)
    before = runner.read_caches(caches)
    kept = {name: array.copy() for name, array in before.items()}
    place = np.full((2, 1), V + TEXT)
    runner.step(layout, StepFeed(place, place, np.full(2, TEXT), np.zeros(2, np.int64)), caches)
    for name, array in before.items():
        np.testing.assert_array_equal(array, kept[name])
    after = runner.read_caches(caches)
    changed = [np.argwhere((after[n] != before[n]).any((0, 1, 3))).ravel() for n in before]
    assert all(slots.tolist() == [V + TEXT] for slots in changed)


@pytest.mark.parametrize(("heads", "new"), [(4, 1), (2, 5), (8, 3)])
def test_masked_attention_of_grouped_heads(heads, new):
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 8, new, 16), (2, heads, 12, 16), (2, heads, 12, 16)
    q, k, v = (torch.randn(*s, generator=generator) for s in shapes)
    mask = torch.rand(2, 1, new, 12, generator=generator) < 0.7
    mask[..., 0] = True
    ours, _ = attention.attention(torch.nn.Module(), q, k, v, mask)
    k, v = (x.repeat_interleave(8 // heads, 1) for x in (k, v))
    scores = (q @ k.transpose(-1, -2) / 4).masked_fill(~mask, -torch.inf)
    torch.testing.assert_close(ours, (scores.softmax(-1) @ v).transpose(1, 2))
