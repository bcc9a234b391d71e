"""OpenAI's own client against the server; answers are those of `VLM.generate`."""

import json
import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from luvc.engines import VLM

from .conftest import KEY, TEXT, asking, create, serving, url_of

pytestmark = pytest.mark.xdist_group("serve")  # a server of the bundle for each file


def test_a_picture_is_answered_as_by_the_bundle(client, picture, wanted):
    found = create(client, asking(url_of(picture)))
    (choice,) = found.choices
    assert choice.message.content == wanted.text and choice.finish_reason in ("length", "stop")
    assert found.usage.completion_tokens == len(wanted.token_ids)
    assert found.usage.prompt_tokens == wanted.prompt_tokens + wanted.visual_tokens
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    details = found.usage.prompt_tokens_details
    assert details.visual_tokens == wanted.visual_tokens


def test_a_request_asks_for_log_probabilities(client, bundle, picture):
    """As generate tells them, in OpenAI's form; whoever does not ask gets none."""
    with VLM.load(bundle, threads=1) as vlm:
        parts = [{"type": "image", "image": picture}, {"type": "text", "text": TEXT}]
        turns = [{"role": "user", "content": parts}]
        wanted = vlm.generate(turns, max_new_tokens=12, temperature=0, logprobs=3)
        decode = vlm.processor.tokenizer.decode
        words = [decode([t.token_id]) for t in wanted.logprobs]
        likeliest = [[decode([i]) for i, _ in t.likeliest] for t in wanted.logprobs]
    found = create(client, asking(url_of(picture)), logprobs=True, top_logprobs=3)
    content = found.choices[0].logprobs.content
    assert [t.token for t in content] == words
    assert [[other.token for other in t.top_logprobs] for t in content] == likeliest
    for told, known in zip(content, wanted.logprobs, strict=True):
        assert told.logprob == pytest.approx(known.logprob, abs=1e-4)
        assert told.bytes == (None if "\ufffd" in told.token else list(told.token.encode()))
    assert create(client, asking(url_of(picture))).choices[0].logprobs is None


def test_a_request_names_its_ratio(workshop, picture):
    """Requests of several ratios at once; one below all of them is told the smallest."""
    path = workshop.bundle("qwen2-ratios").path
    asked = asking(url_of(picture))
    with VLM.load(path, threads=1) as vlm:
        parts = [{"type": "image", "image": picture}, {"type": "text", "text": TEXT}]
        turns = [{"role": "user", "content": parts}]
        alone = {
            ratio: vlm.generate(turns, ratio=ratio, max_new_tokens=12, temperature=0).text
            for ratio in (1, 1.5, 2.5)
        }
    with (
        serving(path) as (url, _),
        openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client,
        ThreadPoolExecutor(3) as pool,
    ):
        found = pool.map(lambda r: create(client, asked, extra_body={"ratio": r}), alone)
        for (ratio, text), answer in zip(alone.items(), found, strict=True):
            assert answer.choices[0].message.content == text
            assert answer.luvc["ratio"] == ratio
        *_, last = create(client, asked, extra_body={"ratio": 9}, stream=True)
        assert last.luvc["ratio"] == 2.5 and "2.5x is the nearest" in str(last.luvc["notes"])
        with pytest.raises(openai.BadRequestError, match=r"image_tokens 1 is less .* smallest is"):
            create(client, asked, extra_body={"image_tokens": 1})


def test_a_text_alone_is_answered(client, bundle):
    with VLM.load(bundle, threads=1) as vlm:
        turns = [{"role": "user", "content": TEXT}]
        answer = vlm.generate(turns, max_new_tokens=12, temperature=0)
    found = create(client, turns)
    assert found.choices[0].message.content == answer.text
    assert found.usage.prompt_tokens == answer.prompt_tokens


def test_a_stream_is_the_same_answer_in_pieces(client, picture, wanted):
    chunks = list(
        create(
            client,
            asking(url_of(picture)),
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    *said, last = chunks
    assert said[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in said) == wanted.text
    assert [c.choices[0].finish_reason for c in said][-1] in ("length", "stop")
    assert not last.choices and last.usage.completion_tokens == len(wanted.token_ids)
    assert len({c.id for c in chunks}) == 1


def test_seed_and_stop_are_the_bundles_own(client, picture, bundle, wanted):
    drawn = [create(client, asking(url_of(picture)), temperature=1.5, seed=s) for s in (3, 3, 4)]
    texts = [found.choices[0].message.content for found in drawn]
    assert texts[0] == texts[1] != texts[2]
    stop = wanted.text[2:4]
    found = create(client, asking(url_of(picture)), stop=stop).choices[0]
    assert found.message.content == wanted.text[: wanted.text.index(stop)]
    assert found.finish_reason == "stop"


def test_two_pictures(workshop, picture):
    bundle = workshop.bundle("qwen2-layouts", 1).path
    shown = [picture, 255 - picture]
    with VLM.load(bundle, threads=1) as vlm:
        parts = [{"type": "image", "image": image} for image in shown]
        turns = [{"role": "user", "content": [*parts, {"type": "text", "text": TEXT}]}]
        answer = vlm.generate(turns, max_new_tokens=8, temperature=0)
    with serving(bundle) as (url, _), openai.OpenAI(base_url=f"{url}/v1", api_key=KEY) as client:
        found = create(client, asking(*map(url_of, shown)), max_tokens=8)
        assert found.choices[0].message.content == answer.text
        with pytest.raises(openai.BadRequestError, match="3 images, this model takes 2"):
            create(client, asking(*[url_of(picture)] * 3))


def test_many_clients_at_once(client, picture, wanted):
    def one(number: int) -> str:
        return create(client, asking(url_of(picture))).choices[0].message.content

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, range(16))) == {wanted.text}


def test_models_and_health_and_metrics(client, server, picture):
    assert [m.id for m in client.models.list()] == ["tiny"]
    with urllib.request.urlopen(f"{server[0]}/health") as reply:
        assert json.load(reply) == {"status": "ok"}
    create(client, asking(url_of(picture)))
    with urllib.request.urlopen(f"{server[0]}/metrics") as reply:
        text = reply.read().decode()
    values = dict(re.findall(r"^(luvc_\S+) (\S+)$", text, re.M))
    assert float(values['luvc_requests_total{status="200"}']) >= 1
    kinds = {k: float(values[f'luvc_tokens_total{{kind="{k}"}}']) for k in ("visual", "completion")}
    assert kinds["visual"] > 0 < kinds["completion"]
    assert float(values['luvc_tokens_total{kind="visual_dropped"}']) > 0
    assert float(values["luvc_first_token_seconds_count"]) >= 1
    assert values["luvc_running"] == "0.0"
