"""The runtime: batches, streams, stops, layouts."""

import numpy as np
import onnxruntime
import pytest

from luvc.engines import VLM
from luvc.engines.reply import Reply
from luvc.engines.sampling import Sampling
from luvc.errors import LuvcError

from ..conftest import ask

QUESTIONS = ("Why?", "What is in the upper left corner of the picture?", "Describe the colours.")


def test_a_ragged_batch_equals_each_row_alone(workshop, picture):
    vlm = workshop.vlm("qwen2")
    pictures = [picture, picture[:, ::-1].copy(), 255 - picture]
    batch = [ask(q, p) for q, p in zip(QUESTIONS, pictures, strict=True)]
    together = vlm.generate(batch, max_new_tokens=24)
    assert len({a.prompt_tokens for a in together}) == 3
    for messages, answer in zip(batch, together, strict=True):
        alone = vlm.generate(messages, max_new_tokens=24)
        assert alone.token_ids == answer.token_ids
        assert alone.text == answer.text


def test_batch_rows_stop_on_their_own(workshop, picture):
    """A row that ends early must not disturb the others."""
    vlm = workshop.vlm("qwen2")
    batch = [ask(q, picture) for q in QUESTIONS]
    full = vlm.generate(batch, max_new_tokens=12)
    end = full[0].token_ids[3]
    cut = vlm.generate(batch, max_new_tokens=12, eos_token_id=(end,))
    for a, b in zip(full, cut, strict=True):
        n = a.token_ids.index(end) + 1 if end in a.token_ids else 12
        assert b.token_ids == a.token_ids[:n]
        assert b.finish_reason == ("stop" if end in a.token_ids else "length")


def test_streaming_gives_the_same_text(workshop, picture):
    vlm = workshop.vlm("qwen2")
    whole = vlm.generate(ask("Why?", picture), max_new_tokens=30)
    stream = vlm.generate(ask("Why?", picture), max_new_tokens=30, stream=True)
    pieces = list(stream)
    assert len(pieces) > 5
    assert "".join(pieces) == whole.text == stream.answer.text
    assert stream.answer.token_ids == whole.token_ids
    assert vlm.processor.tokenizer.decode(whole.token_ids, skip_special_tokens=True) == whole.text


def test_a_stream_may_be_left_and_taken_up_again(workshop, picture):
    vlm = workshop.vlm("qwen2")
    whole = vlm.generate(ask("Why?", picture), max_new_tokens=20)
    stream = vlm.generate(ask("Why?", picture), max_new_tokens=20, stream=True)
    pieces = []
    for piece in stream:
        pieces.append(piece)
        break
    assert pieces[0] + next(stream) + "".join(stream) == whole.text
    again = vlm.generate(ask("Why?", picture), max_new_tokens=20, stream=True)
    next(again)
    assert again.answer.text == whole.text


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(workshop, picture):
    vlm = workshop.vlm("qwen2")
    text = vlm.generate(ask("Why?", picture), max_new_tokens=30).text
    stop = text[20:26]
    stream = vlm.generate(ask("Why?", picture), max_new_tokens=30, stop=[stop, "~~~"], stream=True)
    assert "".join(stream) == text[: text.index(stop)]
    assert stream.answer.finish_reason == "stop"


def test_cancel_ends_between_tokens(workshop, picture):
    vlm = workshop.vlm("qwen2")
    stream = vlm.generate(ask("Why?", picture), max_new_tokens=80, stream=True)
    seen = []
    for piece in stream:
        seen.append(piece)
        if len(seen) == 3:
            stream.cancel()
    assert stream.answer.finish_reason == "cancelled"
    assert len(stream.answer.token_ids) < 10
    assert "".join(seen) == stream.answer.text


def test_generation_stops_at_the_capacity(workshop, picture):
    vlm = workshop.vlm("qwen2")
    answer = vlm.generate(ask("Why?", picture), max_new_tokens=5000)
    assert answer.finish_reason == "capacity"
    assert answer.prompt_tokens + len(answer.token_ids) == vlm.manifest.text_capacity + 1
    shorter = vlm.generate(ask("Why?", picture), max_new_tokens=40)
    assert answer.token_ids[:40] == shorter.token_ids


def test_sampling_repeats_by_seed(workshop, picture):
    vlm = workshop.vlm("qwen2")
    options = {"max_new_tokens": 20, "temperature": 1.5, "top_p": 0.95}
    first = vlm.generate(ask("Why?", picture), seed=5, **options)
    assert first.token_ids == vlm.generate(ask("Why?", picture), seed=5, **options).token_ids
    assert first.token_ids != vlm.generate(ask("Why?", picture), seed=6, **options).token_ids


def test_several_images_in_one_prompt(workshop, picture):
    vlm = workshop.vlm("qwen2-two-images")
    there = vlm.generate(ask("Compare.", picture, 255 - picture), max_new_tokens=16)
    back = vlm.generate(ask("Compare.", 255 - picture, picture), max_new_tokens=16)
    assert there.token_ids != back.token_ids, "both images reach the model, in order"


def test_a_stream_that_failed_says_so_again(workshop, picture, monkeypatch):
    vlm = workshop.vlm("qwen2")

    def refuse(*feed):
        raise LuvcError("too little device memory")

    monkeypatch.setattr(vlm.runner, "prefill", refuse)
    stream = vlm.generate(ask("Why?", picture), stream=True)
    for _ in range(2):
        with pytest.raises(LuvcError, match="too little device memory"):
            _ = stream.answer


def test_bytes_that_are_no_text_do_not_end_an_answer(workshop):
    """tokenizers' stream refuses some orders of byte tokens: it begins anew behind them."""
    tokenizer = workshop.vlm("qwen2").processor.tokenizer
    reply = Reply(tokenizer, Sampling(max_new_tokens=9), [])
    token = tokenizer("colours")["input_ids"][0]
    reply._stream = None  # a stream that can only fail
    logits = np.zeros(len(tokenizer), np.float32)
    logits[token] = 1
    pieces = [reply.accept(logits) for _ in range(3)]
    assert "".join(pieces) == tokenizer.decode([token] * 3)


def test_cuda_that_does_not_work_is_not_used(workshop, picture, monkeypatch):
    """The CUDA wheel lists its provider on every machine."""
    bundle = workshop.bundle("qwen2")
    make = onnxruntime.OrtValue.ortvalue_from_numpy

    def on_the_host(array, device="cpu", number=0):
        if device != "cpu":
            raise RuntimeError("CUDA driver version is insufficient")
        return make(array, device, number)

    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", staticmethod(on_the_host))
    with pytest.warns(UserWarning, match="CUDA does not work: CUDA driver"):
        vlm = VLM.load(bundle.path, backend="ort", threads=1)
    assert vlm.runner.description.endswith("on CPU")
    assert len(vlm.generate(ask("Why?", picture), max_new_tokens=2).token_ids) == 2


def test_a_batch_cannot_be_streamed(workshop, picture):
    vlm = workshop.vlm("qwen2")
    with pytest.raises(LuvcError, match="batch cannot be streamed"):
        vlm.generate([ask("Why?", picture)] * 2, stream=True)


def test_rows_of_a_batch_sample_on_their_own(workshop, picture):
    vlm = workshop.vlm("qwen2")
    options = {"max_new_tokens": 12, "temperature": 1.5, "seed": 1}
    answers = vlm.generate([ask("Why?", picture)] * 3, **options)
    assert len({tuple(a.token_ids) for a in answers}) == 3
    assert answers[0].token_ids == vlm.generate(ask("Why?", picture), **options).token_ids


def test_layouts_share_weights_and_are_picked_by_count_and_size(workshop, picture):
    vlm = workshop.vlm("qwen2-layouts", 1)
    assert len(list(vlm.bundle.path.rglob("*.safetensors"))) == 1
    wide = picture[:56, :112]
    cases = {
        "56x56": [picture[:50, :60]],
        "56x112": [wide],
        "56x56-2images": [picture[:50, :60], picture[:60, :50]],
        "56x112-2images": [wide, wide],
    }
    with pytest.raises(LuvcError, match="no layout '9x9'"):
        vlm.generate(ask("Why?", wide), layout="9x9")
    tall = vlm.generate(ask("Why?", picture[:112, :56]), max_new_tokens=2)
    assert tall.layout == "56x112", "tiles adapt to the orientation"
    forced = vlm.generate(ask("Why?", wide), max_new_tokens=2, layout="56x56")
    assert forced.layout == "56x56"
    for name, images in cases.items():
        answer = vlm.generate(ask("Why?", *images), max_new_tokens=2)
        assert answer.layout == name
        assert answer.visual_tokens == 4 * len(images) * (3 if "112" in name else 1)


def test_a_batch_of_several_layouts_equals_each_row_alone(workshop, picture, monkeypatch):
    """Rows of one layout are run together; answers come in the order of the questions."""
    vlm = workshop.vlm("qwen2-layouts", 1)
    small = picture[:50, :60]
    wide = picture[:56, :112]
    prefill = vlm.runner.prefill
    runs = []
    batch = [
        ask("Why?", wide),
        ask(QUESTIONS[1], small),
        ask(QUESTIONS[2], wide, wide),
        ask(QUESTIONS[2], 255 - wide),
    ]
    alone = [vlm.generate(messages, max_new_tokens=12) for messages in batch]

    def counted(layout, *feed):
        runs.append(layout.name)
        return prefill(layout, *feed)

    monkeypatch.setattr(vlm.runner, "prefill", counted)
    together = vlm.generate(batch, max_new_tokens=12)
    assert sorted(runs) == ["56x112", "56x112-2images", "56x56"]
    assert [a.layout for a in together] == ["56x112", "56x56", "56x112-2images", "56x112"]
    for single, answer in zip(alone, together, strict=True):
        for field in ("token_ids", "text", "finish_reason", "prompt_tokens", "layout", "stages"):
            assert getattr(answer, field) == getattr(single, field)


def test_draws_do_not_depend_on_the_neighbours_layouts(workshop, picture):
    """A row draws by the seed and its place in the whole batch, not in the group of its layout."""
    vlm = workshop.vlm("qwen2-layouts", 1)
    small, wide = ask("Why?", picture[:50, :60]), ask("Why?", picture[:56, :112])
    options = {"max_new_tokens": 12, "temperature": 1.5, "seed": 1}
    mixed, alike = (vlm.generate(batch, **options) for batch in ([small, wide, wide], [wide] * 3))
    assert [a.token_ids for a in mixed[1:]] == [a.token_ids for a in alike[1:]]
    assert mixed[1].token_ids != mixed[2].token_ids
    assert mixed[0].token_ids == vlm.generate(small, **options).token_ids
