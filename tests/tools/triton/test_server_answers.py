"""Answers of a real server are the runtime's own."""

import base64
import json
import threading
import time

import numpy as np
import pytest

from ...conftest import ask
from .real_server import ON_SERVER, SAMPLED, grpc_stream, own, png

pytestmark = ON_SERVER


@pytest.mark.parametrize("fields", [{"max_tokens": 20}, SAMPLED], ids=["greedy", "sampled"])
def test_answers_are_the_runtimes_own(client, vlm, image, fields):
    expected = own(vlm, "What is it?", image, **fields)
    answer = client.generate(image, text_input="What is it?", **fields)
    assert answer["text_output"] == expected.text
    assert answer["finish_reason"] == expected.finish_reason
    assert answer["prompt_tokens"] == expected.prompt_tokens
    assert answer["visual_tokens"] == expected.visual_tokens
    assert answer["layout"] == expected.layout
    assert answer["completion_tokens"] == len(expected.token_ids)
    seen = answer["vision_ms"] > 0, answer["pixels_ms"] > 0
    assert answer["prefill_ms"] > 0 and seen == (answer["reused_tokens"] == 0,) * 2
    pieces = client.stream(image, text_input="What is it?", **fields)
    assert "".join(p["text_output"] for p in pieces) == expected.text and len(pieces) > 1
    assert pieces[-1]["finish_reason"] == expected.finish_reason
    assert "finish_reason" not in pieces[0]


def test_grpc_streams_the_same(server, vlm, image):
    expected = own(vlm, "Why?", image, **SAMPLED)
    with grpc_stream(server.ports) as (send, results, _):
        send(image, text_input="Why?", stream=True, **SAMPLED)
        pieces = []
        while True:
            result, error = results.get(timeout=30)
            assert error is None
            response = result.get_response()
            if result.as_numpy("text_output") is not None:
                pieces.append(result.as_numpy("text_output").item().decode())
            if response.parameters["triton_final_response"].bool_param:
                break
    assert "".join(pieces) == expected.text and len(pieces) > 1


def test_messages_with_pictures_inside_and_beside(client, vlm, picture, image):
    expected = own(vlm, "Why?", image, max_tokens=8).text
    encoded = base64.b64encode(image).decode()
    text = {"type": "text", "text": "Why?"}
    forms = [
        ([{"type": "image"}, text], image),
        ([text], image),
        ([{"type": "image", "image": encoded}, text], None),
        (
            [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}, text],
            None,
        ),
        ("Why?", image),
    ]
    for content, beside in forms:
        messages = json.dumps([{"role": "user", "content": content}])
        assert client.generate(beside, messages=messages, max_tokens=8)["text_output"] == expected


def test_a_layout_is_named_and_told(client, bundle, image):
    (layout,) = bundle.manifest.pictured
    answer = client.generate(image, text_input="Why?", layout=layout.name, max_tokens=2)
    assert answer["layout"] == layout.name and answer["notes"] == ""


def test_questions_without_a_picture(client, vlm, image):
    expected = vlm.generate(ask("Why?"), max_new_tokens=12)
    answer = client.generate(text_input="Why?", max_tokens=12)
    assert answer["text_output"] == expected.text and answer["completion_tokens"] == 12
    assert (answer["layout"], answer["visual_tokens"], answer["vision_ms"]) == ("text", 0, 0)
    named = client.generate(image, text_input="Why?", layout="text")
    assert named["status"] == 400 and "1 image, layout text holds 0" in named["error"]


def test_stop_texts(client, vlm, image):
    text = own(vlm, "Why?", image, max_tokens=30).text
    answer = client.generate(image, text_input="Why?", max_tokens=30, stop=text[20:26])
    assert answer["text_output"] == text[: text.index(text[20:26])]
    assert answer["finish_reason"] == "stop"


def vision_runs(client) -> tuple[int, int]:
    """Pictures that the vision model has seen, and its runs."""
    (found,) = client.get("models/luvc_vision/stats")["model_stats"]
    return found["inference_count"], found["execution_count"]


def counters(client, names) -> list[float]:
    """The scheduler's; the server shows them a little later."""
    last, found = None, []
    while found != last:
        last = found
        time.sleep(0.6)
        found = [client.metric(f"luvc_{n}_total") for n in names]
    return found


def test_the_second_question_about_a_picture_does_not_run_it(client, vlm, picture):
    image, names = png(picture[::-1]), ("prefix_hits", "prefix_misses")
    before, (images, _) = counters(client, names), vision_runs(client)
    for n, text in enumerate(("Why?", "Which colours are there?", "Why?")):
        expected = own(vlm, text, image, max_tokens=12)
        answer = client.generate(image, text_input=text, max_tokens=12)
        assert answer["text_output"] == expected.text
        assert (answer["reused_tokens"] > expected.visual_tokens) == (n > 0)
    assert vision_runs(client)[0] - images == 1
    after = counters(client, names)
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 1]
    kept = client.metric("luvc_prefixes"), client.metric("luvc_prefix_bytes")
    assert kept[0] >= 1 and 0 < kept[1] <= 512 << 20


def crowd(client, pictures) -> list[str]:
    """Answers to as many clients as pictures, all at once; each wants one token more."""
    answers: list = [None] * len(pictures)

    def one(i):
        asked = client.generate(pictures[i], text_input="Why?", max_tokens=10 + i)
        answers[i] = asked["text_output"]

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(pictures))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return answers


def test_twelve_clients_are_batched_and_get_their_own_answers(client, vlm, picture):
    names = ("prefills", "prefilled_rows", "steps", "stepped_rows")
    before, (images, runs) = counters(client, names), vision_runs(client)
    crowds = more_runs = 0
    # on a busy machine a whole crowd may come one by one
    while more_runs == 12 * crowds and crowds < 4:
        pictures = [png(np.roll(picture, 15 * i + 5 + crowds, axis=1)) for i in range(12)]
        expected = [own(vlm, "Why?", p, max_tokens=10 + i).text for i, p in enumerate(pictures)]
        assert crowd(client, pictures) == expected
        crowds, more_runs = crowds + 1, vision_runs(client)[1] - runs
        assert vision_runs(client)[0] - images == 12 * crowds
    assert more_runs < 12 * crowds, "the vision model batches"
    after = counters(client, names)
    prefills, rows, steps, stepped = (b - a for a, b in zip(before, after, strict=True))
    assert prefills < rows == 12 * crowds, "prompts are run together"
    assert stepped == crowds * sum(9 + i for i in range(12))
    assert steps < 0.7 * stepped, "so are steps"


def test_sessions(client, workshop, image):
    chat = workshop.vlm("qwen2-text").chat(max_new_tokens=5)
    first = client.generate(image, text_input="What is it?", session="s", max_tokens=5)
    assert first["text_output"] == chat.ask("What is it?", [image]).text
    second = client.generate(text_input="And the colours?", session="s", max_tokens=5)
    expected = chat.ask("And the colours?")
    assert second["text_output"] == expected.text
    assert second["reused_tokens"] == expected.reused_tokens > 0 and second["vision_ms"] == 0
    unknown = client.generate(text_input="And?", session="nobody")
    assert unknown["status"] == 400 and "conversation 'nobody' is unknown" in unknown["error"]
    client.alive(image)
