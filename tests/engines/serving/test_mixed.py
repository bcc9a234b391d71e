"""Rows of several layouts in one batch, and caches that grow with what is in them."""

import numpy as np
import pytest

from luvc.engines import VLM
from luvc.engines.bundle.tensors import visual_in
from luvc.engines.decoding import Rows
from luvc.engines.prompt.wishes import Wish
from luvc.engines.serving.pool import Pool, Pools

from ...conftest import ask
from .conftest import until

pytestmark = pytest.mark.xdist_group("ratios")  # they share what takes long to export

WISHES = (Wish(ratio=1), Wish(ratio=1.5), Wish(ratio=2.5), Wish())
"""Of each row; the last one has no picture."""
TEXTS = ("Why?", "How many objects are in the picture?", "What is it?", "And in general?")


@pytest.fixture(scope="module")
def vlm(workshop):
    with VLM.load(workshop.bundle("qwen2-ratios").path, threads=1) as vlm:
        yield vlm


def turns(picture):
    shown = [(picture,)] * 3 + [()]
    return [ask(text, *images) for text, images in zip(TEXTS, shown, strict=True)]


def alone(vlm, picture):
    """Each row by itself: its rows, and the logits of its prompt."""
    prompts = [
        vlm.processor.prompt(messages, wish)
        for messages, wish in zip(turns(picture), WISHES, strict=True)
    ]
    return [vlm.prefill([prompt])[:2] for prompt in prompts]


def together(vlm, rows):
    """The same rows in one pool."""
    pool: Pool = Pool(vlm.runner, vlm.manifest, rows[0].layout, len(rows))
    for n, row in enumerate(rows):
        pool.reserve(row.slots(0))
        caches = pool.space(1)
        vlm.runner.write_caches(caches, vlm.runner.read_caches(row.caches))
        pool.join(Rows(vlm.runner, vlm.manifest, row.layout, 1, caches, row.reached), [n])
    return pool


def test_one_step_graph_serves_all_layouts(vlm, picture):
    """Its files differ in the sizes of caches that they name: TensorRT wants fixed ones."""
    import onnx

    manifest, graphs = vlm.manifest, {}
    assert manifest.slots == "free" and len(manifest.layouts) == 4
    for layout in manifest.layouts:
        model = onnx.load(vlm.bundle.file(layout.graphs.step), load_external_data=False)
        entering = visual_in(layout, manifest.language.layers)
        for value in (*model.graph.input, *model.graph.output):
            dims = value.type.tensor_type.shape.dim
            if value.name == "visual_len":
                assert [dims[0].dim_param, dims[1].dim_value] == ["B", 4]
            if value.name.startswith("cache_"):
                layer = int(value.name.removesuffix("_out").split("_")[2])
                assert dims[2].dim_value == manifest.text_capacity + entering[layer]
                dims[2].dim_param = "any"
        graphs[layout.graphs.step] = model.SerializeToString(deterministic=True)
    assert len(graphs) == 4 and len(set(graphs.values())) == 1
    for row, _ in alone(vlm, picture):
        row.step([[7]])
    assert len(set(graphs) & {graph for graph, _ in vlm.runner._sessions}) == 1


@pytest.mark.parametrize("lengths", [(1, 1, 1, 1), (1, 3, 5, 2), (0, 2, 0, 7)])
def test_a_mixed_batch_equals_its_rows_alone(vlm, picture, lengths):
    """Single tokens, ragged turns, and rows that are carried along."""
    found = alone(vlm, picture)
    pool = together(vlm, [row for row, _ in found])
    draw = np.random.default_rng(3)
    for _ in range(3):
        tokens = [draw.integers(5, 200, n).tolist() for n in lengths]
        mixed = pool.step(tokens)
        for n, (row, _) in enumerate(found):
            if tokens[n]:
                wanted = row.step([tokens[n]])[0]
                np.testing.assert_allclose(mixed[n], wanted, atol=1e-4)
    for n, (row, _) in enumerate(found):
        assert pool.rows.text_len[n] == row.text_len[0]
        assert pool.rows.length(n) == row.length(0)


def test_requests_of_all_ratios_decode_together(vlm, picture, serve, monkeypatch):
    """One pool, steps over all four rows, greedy tokens as alone."""
    wanted = [
        vlm.generate(messages, max_new_tokens=12, temperature=0, **vars(wish))
        for messages, wish in zip(turns(picture), WISHES, strict=True)
    ]
    seen = []
    step = vlm.runner.step

    def watched(layout, feed, caches):
        seen.append(None if feed.visual_len is None else feed.visual_len.tolist())
        if len(seen) == 1:  # the others are prepared meanwhile
            until(lambda: len(scheduler._prepared) + scheduler.running == 4)
        return step(layout, feed, caches)

    monkeypatch.setattr(vlm.runner, "step", watched)
    scheduler = serve(vlm, rows=4)
    tickets = [
        scheduler.submit(messages, max_new_tokens=12, temperature=0, **vars(wish))
        for messages, wish in zip(turns(picture), WISHES, strict=True)
    ]
    for ticket, answer in zip(tickets, wanted, strict=True):
        assert ticket.answer.token_ids == answer.token_ids
        assert ticket.answer.layout == answer.layout
    assert len(scheduler._pools._made) == 1
    assert max(map(len, seen)) == 4
    assert any(len({tuple(row) for row in rows}) == 4 for rows in seen)


def test_caches_grow_with_their_rows(vlm, picture):
    """No more slots than are needed, to a multiple; what was in them stays, and logits do not change."""
    (row, _), *_ = alone(vlm, picture)
    whole = Rows(vlm.runner, vlm.manifest, row.layout, 1, vlm.runner.new_caches(row.layout, 1))
    whole.reached = row.reached
    vlm.runner.write_caches(whole.caches, vlm.runner.read_caches(row.caches))
    before = {n: c.shape[2] for n, c in vlm.runner.read_caches(row.caches).items()}
    assert set(before.values()) == {64}  # 36 visual tokens and the prompt
    full = {n: c.shape[2] for n, c in vlm.runner.read_caches(whole.caches).items()}
    assert set(full.values()) == {vlm.manifest.text_capacity + 36}
    for n in range(40):
        token = [7 + n]
        np.testing.assert_allclose(row.step([token]), whole.step([token]), atol=1e-5)
    after = {n: c.shape[2] for n, c in vlm.runner.read_caches(row.caches).items()}
    used = row.slots(0)
    assert all(used[0] <= size < used[0] + 64 for size in after.values())


def test_layouts_of_older_bundles_stay_apart(workshop):
    """Their graphs have the slots of one layout: a pool for each."""
    vlm = workshop.vlm("qwen2-ratios")
    old = vlm.manifest.model_copy(update={"slots": "fixed"})
    runner = type(vlm.runner)(vlm.bundle)
    runner.bundle = type(vlm.bundle)(vlm.bundle.path, old)
    assert not runner.mixes and vlm.runner.mixes
    pools: Pools = Pools(runner, old, 2)
    one, two = old.layouts[:2]
    assert pools.of(one) is pools.of(one)
    assert pools.of(one) is not pools.of(two)
