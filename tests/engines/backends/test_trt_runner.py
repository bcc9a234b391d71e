"""The TensorRT runner on a fake device: all of it but the CUDA and TensorRT calls themselves."""

import gc
import shutil

import numpy as np
import onnx
import pytest

from luvc.engines import VLM, Bundle
from luvc.engines.backends.ort.backend import ort
from luvc.engines.backends.trt import kv_buffers
from luvc.errors import LuvcError

from ...conftest import ask
from .fake_device import FakeCuda, FakeSession
from .fake_runner import CASE, make


@pytest.fixture(scope="module")
def both(workshop):
    """The same bundle on the fake device and on ONNX Runtime."""
    bundle, cuda = workshop.bundle(CASE), FakeCuda()
    return VLM(bundle, make(bundle, cuda)), VLM.load(bundle.path, backend="ort", threads=1), cuda


def test_answers_equal_onnx_runtime(both, picture):
    ours, theirs, cuda = both
    messages = ask("What is this?", picture)
    cuda.captures = cuda.launches = 0
    a, b = (vlm.generate(messages, max_new_tokens=12) for vlm in (ours, theirs))
    assert a.token_ids == b.token_ids and a.stages == b.stages
    steps = len(a.token_ids) - 1
    # the first step runs as it is, the second is recorded, and all from then on are replayed
    assert (cuda.captures, cuda.launches) == (1, steps - 1)


def test_batches_and_turns_equal_onnx_runtime(both, picture):
    ours, theirs, _ = both
    batch = [ask("Hello", picture), ask("Which colours does the whole picture have?", picture)]
    answers = [vlm.generate(batch, max_new_tokens=6) for vlm in (ours, theirs)]
    assert [a.token_ids for a in answers[0]] == [a.token_ids for a in answers[1]]
    turns = []
    for vlm in (ours, theirs):
        chat = vlm.chat(max_new_tokens=5)
        turns.append([chat.ask("Hello", [picture]), chat.ask("And then?")])
    assert [t.token_ids for t in turns[0]] == [t.token_ids for t in turns[1]]


def test_a_crowd_and_a_conversation_share_the_device(both, picture):
    """Rows that come, move and go on the device: equal to ONNX Runtime, and steps are replayed."""
    from luvc.engines.serving import Limits, Scheduler

    ours, theirs, cuda = both
    cuda.captures = cuda.launches = 0
    scheduler = Scheduler(ours, Limits(rows=4, prefill=2, prefix_mib=0))
    lengths = (9, 3, 14, 6, 11, 4)
    tickets = [scheduler.submit(ask("Hello", picture), max_new_tokens=n) for n in lengths]
    chat = theirs.chat(max_new_tokens=5)
    for text, images in (("What is this?", [picture]), ("And then?", [])):
        answer = scheduler.submit(ask(text, *images), conversation="s", max_new_tokens=5).answer
        expected = chat.ask(text, images)
        assert answer.token_ids == expected.token_ids
        assert answer.reused_tokens == expected.reused_tokens
    for length, ticket in zip(lengths, tickets, strict=True):
        expected = theirs.generate(ask("Hello", picture), max_new_tokens=length)
        assert ticket.answer.token_ids == expected.token_ids
    assert 0 < cuda.captures <= 4 and cuda.launches > cuda.captures, "one recording for each B"
    scheduler.close()


def test_a_prefix_comes_back_to_the_device_whole(both, picture):
    """Its slots in use alone are kept, and rows lie side by side: questions of unequal lengths at once."""
    from luvc.engines.serving import Limits, Scheduler

    ours, theirs, _ = both
    images = (picture, 255 - picture)
    texts = ("Hello", "Which colours does the whole picture have?", "Why?", "And then?")
    with Scheduler(ours, Limits(rows=4, prefill=2)) as scheduler:
        asked = [ask(text, image) for text in texts for image in images]
        tickets = [scheduler.submit(messages, max_new_tokens=9) for messages in asked]
        for messages, ticket in zip(asked, tickets, strict=True):
            expected = theirs.generate(messages, max_new_tokens=9)
            assert ticket.answer.token_ids == expected.token_ids
        assert (scheduler.prefixes.misses, scheduler.prefixes.hits) == (2, 6)


def test_a_row_that_tensorrt_cannot_address_is_refused(both):
    from luvc.engines.backends.trt.kv_buffers import Caches
    from luvc.engines.bundle.tensors import CacheSpec

    caches = Caches(FakeCuda(), [CacheSpec("a", (2, 1, 3, 64), "float16")])  # rows of 384 bytes
    with pytest.raises(LuvcError, match="multiple of 256"):
        caches.window(None, 1, 1)
    assert caches.window(None, 0, 1) is caches.window(None, 0, 1)


def test_a_scheduler_refuses_such_rows_before_any_request(both, monkeypatch):
    from luvc.engines.serving import Limits, Scheduler

    ours, _, _ = both
    monkeypatch.setattr(kv_buffers, "ALIGNED", 241)  # divides no row
    Scheduler(ours, Limits(rows=1)).close()
    with pytest.raises(LuvcError, match="row 1 of the caches does not begin at a multiple of 241"):
        Scheduler(ours, Limits(rows=2))


def test_engines_for_several_rows_only_cannot_serve(both):
    """Requests join and leave one by one; said when the scheduler starts, not to a request."""
    from luvc.engines.serving import Limits, Scheduler

    bundle = both[0].bundle
    runner, step = make(bundle, FakeCuda()), bundle.manifest.layouts[0].graphs.step
    profiles = tuple({**p, "B": (2, 2, 4)} for p in runner.files[step].profiles)
    runner.files[step] = runner.files[step].model_copy(update={"profiles": profiles})
    with pytest.raises(LuvcError, match=r"batch of 1 .* 2 to 4: luvc-build --batch 1,2,4"):
        Scheduler(VLM(bundle, runner), Limits(rows=4))


def test_engines_from_before_towers_told_what_they_join(workshop, tmp_path):
    """A matched tower tells what it does on ONNX Runtime; an older graph of it runs, and tells nothing."""
    made = workshop.bundle("qwen2-two-images")
    bundle = Bundle.load(shutil.copytree(made.path, tmp_path / "bundle"))
    (layout,) = bundle.manifest.layouts
    shape = layout.pixel_shape[0] * layout.images, *layout.pixel_shape[1:]
    pixels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with ort.runner(made) as theirs:
        expected = theirs.vision_result(layout, pixels)
    found = make(bundle, FakeCuda()).vision_result(layout, pixels)
    assert len(found.joins) == len(layout.schedule.vision) > 0
    assert all(map(np.array_equal, found.joins, expected.joins))
    file = bundle.file(layout.graphs.vision)
    graph = onnx.load(file, load_external_data=False)
    del graph.graph.output[1:]
    file.write_bytes(graph.SerializeToString())
    older = make(bundle, FakeCuda())
    older.prepare(layout, language=False)
    assert older.vision_result(layout, pixels).joins == ()
    assert np.allclose(older.vision(layout, pixels), found.embeds, rtol=1e-4, atol=1e-5)


def test_caches_stay_on_the_device(both, picture):
    ours, _, cuda = both
    cuda.moved.clear()
    ours.generate(ask("What is this?", picture), max_new_tokens=4)
    layout = ours.manifest.layouts[0]
    smallest = np.prod(ours.runner.new_caches(layout, 1).specs[-1].shape) * 2
    pixels = np.prod(layout.pixel_shape) * 4
    assert [m for m in cuda.moved if m >= smallest] == [pixels]


def test_memory_goes_back_with_the_caches(both):
    ours, _, cuda = both
    layout = ours.manifest.layouts[0]
    gc.collect()
    before = cuda.memory()[0]
    caches = ours.runner.new_caches(layout, 2)
    assert all(not c.any() for c in ours.runner.read_caches(caches).values())
    assert before - cuda.memory()[0] >= 2 * ours.manifest.kv_bytes(layout)
    del caches
    gc.collect()
    assert cuda.memory()[0] == before


def test_other_shapes_are_recorded_again(both, picture):
    """A batch in between changes the context's shapes: the old recording must not be replayed."""
    ours, theirs, cuda = both
    chats = [vlm.chat(max_new_tokens=6) for vlm in (ours, theirs)]
    first = [c.ask("Hello", [picture]).token_ids for c in chats]
    for vlm in (ours, theirs):
        vlm.generate([ask("Hello", picture)] * 2, max_new_tokens=4)
    cuda.captures = 0
    second = [c.ask("Go on").token_ids for c in chats]
    assert first[0] == first[1] and second[0] == second[1]
    assert cuda.captures == 1


def test_a_step_that_cannot_be_recorded_runs_without_a_graph(both, picture, monkeypatch):
    ours, theirs, cuda = both

    def refuse(work):
        raise RuntimeError("not permitted")

    monkeypatch.setattr(cuda, "capture", refuse)
    messages = ask("What is this?", picture)
    with pytest.warns(UserWarning, match="without a CUDA graph: not permitted"):
        answer = ours.generate(messages, max_new_tokens=6)
    assert answer.token_ids == theirs.generate(messages, max_new_tokens=6).token_ids


def test_short_memory_is_said_in_numbers(both):
    ours, _, _ = both
    runner = make(ours.bundle, FakeCuda(total=2**19))
    with pytest.raises(LuvcError, match=r"caches of 4 conversations need 1 MiB .* 0 of 0 MiB"):
        runner.new_caches(ours.manifest.layouts[0], 4)


def test_a_batch_outside_the_engine(both):
    ours, _, _ = both
    with pytest.raises(LuvcError, match=r"batch of 5 .* 1 to 4: luvc-build --batch 1,1,5"):
        ours.runner.new_caches(ours.manifest.layouts[0], 5)


def test_an_engine_that_copies_caches_is_refused(both, monkeypatch):
    ours, _, _ = both
    monkeypatch.setattr(FakeSession, "in_place", lambda *_: False)
    runner = make(ours.bundle, FakeCuda())
    with pytest.raises(LuvcError, match="does not update cache_key_0 in place"):
        runner.prepare(ours.manifest.layouts[0])


def test_small_caches_are_copied_back(both, picture, monkeypatch):
    """Positions and states of convolutions: no engine updates those in place. Here all are such."""
    monkeypatch.setattr(kv_buffers, "COPIED", ("key", "value"))
    monkeypatch.setattr(FakeSession, "in_place", lambda *_: False)
    ours, theirs, _ = both
    cuda = FakeCuda()
    copying = VLM(ours.bundle, make(ours.bundle, cuda))
    messages = ask("What is this?", picture)
    a, b = (vlm.generate(messages, max_new_tokens=12) for vlm in (copying, theirs))
    assert a.token_ids == b.token_ids
    assert (cuda.captures, cuda.launches) == (1, len(a.token_ids) - 2)


def test_a_step_that_an_engine_does_not_let_record_is_said(both, picture, monkeypatch):
    ours, theirs, cuda = both
    monkeypatch.setattr(FakeSession, "capturable", lambda *_: False)
    messages, before = ask("What is this?", picture), cuda.captures
    with pytest.warns(UserWarning, match="without a CUDA graph: the engine allows none"):
        answer = ours.generate(messages, max_new_tokens=6)
    assert answer.token_ids == theirs.generate(messages, max_new_tokens=6).token_ids
    assert cuda.captures == before
