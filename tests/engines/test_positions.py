"""Positions beyond those that a model was made for: refused in every prompt, and the end of every answer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from luvc.engines import VLM
from luvc.engines.bundle.layout import Layout
from luvc.engines.bundle.manifest import LanguageModel
from luvc.engines.decoding import Rows
from luvc.engines.prompt.positions import prompt_positions
from luvc.engines.prompt.video_files import FileFrames
from luvc.engines.prompt.videos import open_video
from luvc.engines.serving import Limits, Scheduler
from luvc.errors import LuvcError

from ..conftest import ask

IMAGE = 9
BEYOND = r"the prompt has the position {}, the model was made for those below {}"


def limited(vlm: VLM, positions: int) -> VLM:
    """The same model, made for so many positions; it shares the runner."""
    language = vlm.manifest.language.model_copy(update={"max_positions": positions})
    manifest = vlm.manifest.model_copy(update={"language": language})
    return VLM(replace(vlm.bundle, manifest=manifest), vlm.runner)


def in_three_axes(positions: int, time_scale: float = 2.0) -> LanguageModel:
    return LanguageModel.model_construct(
        max_positions=positions, position_axes=3, time_scale=time_scale, image_token_id=IMAGE
    )


def video(steps: int) -> tuple[Layout, list[int]]:
    """A layout of 2x3 tokens a step, and a prompt of two texts around the video."""
    return Layout.model_construct(visual_grid=(steps, 2, 3)), [1, 2, *[IMAGE] * 6 * steps, 3]


@pytest.fixture
def length(workshop, picture) -> int:
    """Tokens of the question that is asked here."""
    return len(workshop.vlm("qwen2").processor.prompt(ask("Why?", picture)).input_ids)


def test_a_prompt_beyond_the_model_is_refused_wherever_it_is_asked(workshop, picture, length):
    vlm, asked = workshop.vlm("qwen2"), ask("Why?", picture)
    assert limited(vlm, length).generate(asked, max_new_tokens=1).token_ids
    short = limited(vlm, length - 1)
    message = BEYOND.format(length - 1, length - 1)
    with pytest.raises(LuvcError, match=message):
        short.generate(asked)
    with pytest.raises(LuvcError, match=message):
        short.generate([ask("W?", picture), asked])
    with Scheduler(short, Limits(rows=2)) as scheduler:
        neighbour = scheduler.submit(ask("W?", picture), max_new_tokens=1)
        with pytest.raises(LuvcError, match=message):
            _ = scheduler.submit(asked).answer
        assert neighbour.answer.token_ids
    chat = limited(vlm, length + 4).chat(max_new_tokens=2)
    chat.ask("Why?", images=[picture])
    with pytest.raises(LuvcError, match="the prompt has the position"):
        chat.ask("And the colours?")
    assert len(chat.messages) == 2  # the turn is not added


@pytest.mark.parametrize("room", [0, 1, 5])
def test_an_answer_ends_with_the_models_positions(workshop, picture, length, room, monkeypatch):
    """What was made until then is the whole answer's beginning; no position beyond was run."""
    vlm, asked = workshop.vlm("qwen2"), ask("Why?", picture)
    whole = vlm.generate(asked, max_new_tokens=20).token_ids
    short, step = limited(vlm, length + room), vlm.runner.step
    seen: list[np.ndarray] = []
    monkeypatch.setattr(
        vlm.runner,
        "step",
        lambda layout, feed, caches: seen.append(feed.position_ids) or step(layout, feed, caches),
    )
    with Scheduler(short, Limits(rows=1, prefix_mib=0)) as scheduler:
        answers = [
            short.generate(asked, max_new_tokens=20),
            short.chat(max_new_tokens=20).ask("Why?", images=[picture]),
            scheduler.submit(asked, max_new_tokens=20).answer,
        ]
    for answer in answers:
        assert answer.finish_reason == "capacity" and answer.token_ids == whole[: room + 1]
    assert len(seen) == 3 * room and all(positions.max() < length + room for positions in seen)


def test_a_step_beyond_the_model_is_refused(workshop, picture, length):
    short = limited(workshop.vlm("qwen2"), length + 2)
    rows, *_ = short.prefill([short.processor.prompt(ask("Why?", picture))])
    said = f"3 more .* at position {length}: the model was made for the positions below {length + 2}: give"
    with pytest.raises(LuvcError, match=said) as error:
        rows.step([[1, 2, 3]])
    assert "--text-capacity" not in str(error.value), "it cannot help"
    assert rows.step([[1, 2]]).shape[0] == 1 and rows.room(0) == 0


def test_a_step_beyond_the_caches_is_refused(workshop, picture):
    vlm = workshop.vlm("qwen2")
    rows, *_ = vlm.prefill([vlm.processor.prompt(ask("Why?", picture))])
    room, used = rows.room(0), rows.text_len[0]
    said = f"do not fit behind {used}.*holds {used + room} text tokens .* larger --text-capacity, or ask"
    with pytest.raises(LuvcError, match=said):
        rows.step([[1] * (room + 1)])


def test_positions_from_one_have_one_more(workshop, length):
    """PaliGemma counts from 1: its longest sequence ends one later."""
    language = workshop.vlm("qwen2").manifest.language
    for first in (0, 1):
        given = language.model_copy(update={"first_position": first, "max_positions": 7})
        placed, after = prompt_positions([1] * 7, given, Layout.model_construct())
        assert placed.tolist() == list(range(first, first + 7)) and after == first + 7
        with pytest.raises(LuvcError, match=f"position {first + 7}, .* below {first + 7}"):
            prompt_positions([1] * 8, given, Layout.model_construct())


@pytest.mark.parametrize("seconds", [0.5, 3.0, 40.0])
def test_a_videos_time_counts(seconds):
    """The last step stands 3 paces behind the first; text goes on behind all of it."""
    layout, ids = video(steps=4)
    last = 2 + 3 * max(1, int(2 * seconds)) if seconds > 1 else 5
    placed, after = prompt_positions(ids, in_three_axes(last + 1), layout, [seconds])
    assert placed.max() == last == after - 1
    with pytest.raises(LuvcError, match=BEYOND.format(last, last)) as error:
        prompt_positions(ids, in_three_axes(last), layout, [seconds])
    assert ("give the fps that its frames have" in str(error.value)) == (seconds > 1)


@pytest.mark.parametrize("seconds", [2 * 86_400.0, 1e18, 1e300])
def test_a_time_that_no_position_can_hold_is_refused(seconds):
    layout, ids = video(steps=4)
    with pytest.raises(LuvcError, match=r"made for those below 2147483648: its video moves .*e\+"):
        prompt_positions(ids, in_three_axes(1 << 31, time_scale=1e5), layout, [seconds])
    still, after = prompt_positions(ids, in_three_axes(32, time_scale=0), layout, [seconds])
    assert (still.max(), after) == (5, 6)  # where positions do not follow the time


def test_a_file_slower_than_a_frame_a_day_is_refused():
    frames = FileFrames(Path("glacier.mkv"), 3, 1e-9, (8, 8), 20.0)
    with pytest.raises(LuvcError, match=r"glacier\.mkv shows 1e-09 frames a second"):
        open_video(frames)


def test_rows_refuse_prompts_that_came_another_way(workshop, picture, length):
    """The same check stands where positions are made, behind the processor's."""
    vlm = workshop.vlm("qwen2")
    prompt = vlm.processor.prompt(ask("Why?", picture))
    short = limited(vlm, length - 1).manifest
    embeds, _ = vlm.embed([prompt])
    with pytest.raises(LuvcError, match="the prompt has the position"):
        Rows(vlm.runner, short, prompt.layout, 1).prefill([prompt.input_ids], embeds)
