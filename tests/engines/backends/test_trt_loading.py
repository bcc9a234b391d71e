"""What the TensorRT runner opens and prepares on the fake device, and what closing gives back."""

import shutil
import weakref
from typing import Any

import numpy as np
import pytest

from luvc.engines import VLM, Bundle
from luvc.engines.backends.base import PrefillFeed, StepFeed
from luvc.engines.backends.trt.prompt_lengths import pad_prompts, pad_turns
from luvc.engines.bundle.swap import replacing
from luvc.errors import LuvcError

from ...conftest import ask
from .fake_device import FakeCuda
from .fake_runner import CASE, make, opened


def test_prompts_are_padded_to_few_lengths(workshop):
    def padded(length, longest, shortest=1):
        ids = np.ones((2, length), np.int64)
        feed = PrefillFeed(ids, ids[..., None], ids, np.repeat(ids[..., None], 3, -1), ids[:, 0])
        found = pad_prompts(feed, shortest, longest)
        assert found.position_ids.shape == (*found.input_ids.shape, 3)
        assert found.input_ids.sum() == 2 * length and (found.input_ids[:, :length] == 1).all()
        assert found.visual_index is ids and found.last_index is feed.last_index
        return found.input_ids.shape[1]

    cases = ((3, 200), (64, 200), (65, 200), (130, 150), (151, 150), (64, 150, 65))
    assert [padded(*case) for case in cases] == [64, 64, 128, 150, 151, 128]
    bundle = workshop.bundle(CASE)
    (layout,) = bundle.manifest.layouts
    runner, prefill = make(bundle, FakeCuda()), layout.graphs.prefill
    runner.prepare(layout, vision=False)
    assert runner._sessions[prefill]._shapes[0]["input_ids"] == (1, 64)


def test_turns_are_padded_as_far_as_there_is_room():
    def padded(length, *text):
        ids, text_len = np.ones((2, length), np.int64), np.array(text)
        positions = np.repeat(ids[..., None], 3, -1)
        found = pad_turns(StepFeed(ids, positions, text_len, text_len * 0 + length - 1), 96)
        assert found.position_ids.shape == (*found.input_ids.shape, 3)
        assert found.input_ids.sum() == 2 * length and (found.input_ids[:, :length] == 1).all()
        assert found.text_len is text_len and (found.last_index == length - 1).all()
        return found.input_ids.shape[1]

    cases = ((1, 0, 0), (2, 0, 0), (16, 0, 0), (17, 0, 0), (5, 85, 10), (11, 85, 10))
    assert [padded(*case) for case in cases] == [1, 16, 16, 32, 11, 11]


def test_prepare_runs_everything_once(workshop):
    bundle, cuda = workshop.bundle(CASE), FakeCuda()
    runner = make(bundle, cuda)
    runner.prepare(bundle.manifest.layouts[0])
    assert [s.runs for s in opened(runner)] == [1, 1, 1]
    assert not cuda.queue


def test_a_question_without_a_picture(workshop):
    bundle, cuda = workshop.bundle("qwen2-text-fp16"), FakeCuda()
    layout = bundle.manifest.layouts[1]
    runner = make(bundle, cuda)
    runner.prepare(layout)
    assert set(runner._sessions) == {layout.graphs.prefill, layout.graphs.step}
    ort = VLM.load(bundle.path, backend="ort", threads=1)
    wanted = ort.generate(ask("Why?"), max_new_tokens=12)
    assert (
        VLM(bundle, runner).generate(ask("Why?"), max_new_tokens=12).token_ids == wanted.token_ids
    )


def test_a_part_of_the_model_is_prepared_alone(workshop):
    bundle = workshop.bundle(CASE)
    (layout,) = bundle.manifest.layouts
    graphs = layout.graphs
    for part, loaded in (("vision", {graphs.prefill, graphs.step}), ("language", {graphs.vision})):
        runner = make(bundle, FakeCuda())
        runner.prepare(layout, **{part: False})
        assert set(runner._sessions) == loaded


def test_an_engine_is_not_opened_from_another_bundle(workshop, tmp_path):
    """The vision engine is open when the bundle is replaced; the plans of the language model are not."""
    bundle = Bundle.load(shutil.copytree(workshop.bundle(CASE).path, tmp_path / "bundle"))
    (layout,) = bundle.manifest.layouts
    runner = make(bundle, FakeCuda())
    runner.prepare(layout, language=False)
    with replacing(bundle.path) as work:
        shutil.copytree(workshop.bundle("qwen2").path, work, dirs_exist_ok=True)
    with pytest.raises(LuvcError, match=r"was replaced .* restart the service"):
        runner.prepare(layout, vision=False)
    assert set(runner._sessions) == {layout.graphs.vision}


def test_close_gives_all_device_memory_back(workshop, picture):
    """With a chat, a stream and a scheduler's rows still held by their owners."""
    from luvc.engines.serving import Limits, Scheduler

    bundle, cuda = workshop.bundle(CASE), FakeCuda()
    runner = make(bundle, cuda)
    vlm = VLM(bundle, runner)
    chat, stream = vlm.chat(max_new_tokens=5), vlm.generate(ask("Why?", picture), stream=True)
    chat.ask("Hello", [picture])
    chat.ask("And then?")  # buffers of several new tokens, which stay
    next(stream)
    assert chat._rows is not None
    caches = chat._rows.caches
    with Scheduler(vlm, Limits(rows=3)) as scheduler:
        before = len(cuda.held)
        assert scheduler.submit(ask("Hello", picture), max_new_tokens=5).answer
    assert len(cuda.held) < before, "a closed scheduler holds no caches"
    weights = [weakref.ref(session._session) for session in opened(runner)]
    assert cuda.held and len(weights) == 3
    vlm.close()
    assert not cuda.held and not any(w() for w in weights)
    vlm.close()
    opener: Any = runner._opener
    assert opener.closed == 1
    for closed in (
        lambda: chat.ask("And?"),
        lambda: next(stream),
        lambda: stream.answer,
        lambda: vlm.runner.read_caches(caches),
    ):
        with pytest.raises(LuvcError, match="the model is closed"):
            closed()
