"""Batches in parts: the numbers of ONNX Runtime running the whole batch at once."""

import numpy as np
import pytest

from luvc.engines.backends.base import PrefillFeed
from luvc.engines.backends.ort import chunks

ROWS = 5
ROUNDING = 1e-5
"""Of logits: ONNX Runtime multiplies a single row by another kernel than several."""


@pytest.fixture
def run(workshop, monkeypatch):
    """What `ROWS` prompts of unequal length give in parts of so many tokens, and the rows of each run."""
    vlm = workshop.vlm("qwen2")
    layout, random = vlm.manifest.layouts[0], np.random.default_rng(0)
    language = vlm.manifest.language
    sessions = []
    inner = vlm.runner._run

    def spied(session, feed, caches, outputs):
        sessions.append(len(feed["input_ids"]))
        return inner(session, feed, caches, outputs)

    monkeypatch.setattr(vlm.runner, "_run", spied)
    text, length = 6, 12
    pixels = random.normal(
        size=(ROWS * layout.pixel_shape[0] * layout.images, *layout.pixel_shape[1:])
    )
    ids = random.integers(0, language.vocab_size, (ROWS, layout.visual_tokens + length))

    def of(tokens):
        monkeypatch.setattr(chunks, "TOKENS", tokens)
        sessions.clear()
        embeds = vlm.runner.vision(layout, pixels.astype(np.float32))
        embeds = embeds.reshape(ROWS, layout.visual_tokens, -1)
        feed = PrefillFeed(
            input_ids=ids,
            visual_embeds=embeds,
            visual_index=np.tile(np.arange(2, 2 + layout.visual_tokens), (ROWS, 1)),
            position_ids=np.tile(np.arange(ids.shape[1]), (ROWS, 1)),
            last_index=layout.visual_tokens + text + np.arange(ROWS),
        )
        caches = vlm.runner.new_caches(layout, ROWS)
        found = vlm.runner.prefill(layout, feed, caches)
        return embeds, found, vlm.runner.read_caches(caches), list(sessions)

    of.length = ids.shape[1]
    return of


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_parts_give_what_the_whole_batch_gives(run, rows):
    whole = run(10**9)
    embeds, found, caches, sessions = run(rows * run.length)
    assert whole[3] == [ROWS] and max(sessions) == rows and sum(sessions) == ROWS
    np.testing.assert_array_equal(embeds, whole[0])
    np.testing.assert_allclose(found.logits, whole[1].logits, rtol=0, atol=ROUNDING)
    assert found.stages.keys() == whole[1].stages.keys() and found.stages
    for layer, stage in found.stages.items():
        np.testing.assert_array_equal(stage.kept, whole[1].stages[layer].kept)
        np.testing.assert_allclose(stage.energies, whole[1].stages[layer].energies, rtol=1e-5)
    for name, cache in caches.items():
        np.testing.assert_allclose(cache, whole[2][name], rtol=0, atol=ROUNDING)


def test_a_long_prompt_is_a_part_of_its_own(run):
    *_, sessions = run(run.length - 1)
    assert sessions == [1] * ROWS


def test_short_prompts_run_together(run):
    """With the parts of the product: a small batch stays one run."""
    assert ROWS * run.length <= chunks.TOKENS
    *_, sessions = run(chunks.TOKENS)
    assert sessions == [ROWS]


@pytest.mark.parametrize(("tokens", "sizes"), [(1, [3, 3, 3]), (24, [6, 3]), (10**6, [9])])
def test_an_image_of_several_tiles_stays_whole(workshop, tokens, sizes, monkeypatch):
    monkeypatch.setattr(chunks, "TOKENS", tokens)
    layout = workshop.bundle("qwen2").manifest.layouts[0]
    layout = layout.model_copy(update={"pixel_shape": (3, *layout.pixel_shape[1:]), "grid": (2, 2)})
    pixels = np.arange(9)[:, None]
    parts = list(chunks.parts_of_images(layout, pixels))
    assert [len(part) for part in parts] == sizes
    np.testing.assert_array_equal(np.concatenate(parts), pixels)
