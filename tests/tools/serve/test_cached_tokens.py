"""A picture that was asked about before, as OpenAI's own client sees it."""

import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from luvc.engines import VLM
from luvc.engines.serving import Limits

from .conftest import KEY, TEXT, asking, create, serving, url_of

pytestmark = pytest.mark.xdist_group("serve")  # a server of the bundle for each file


def metrics(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/metrics") as reply:
        text = reply.read().decode()
    return {name: float(value) for name, value in re.findall(r"^(luvc_\S+) (\S+)$", text, re.M)}


def cached(found) -> int:
    return found.usage.prompt_tokens_details.cached_tokens


@pytest.fixture
def fresh(bundle):
    """Servers that have answered nothing yet -> URL and client."""

    def serve(mib: int):
        return serving(bundle, Limits(rows=4, prefix_mib=mib))

    return serve


def test_the_second_question_about_a_picture_is_cached(fresh, bundle, picture, wanted):
    url = url_of(picture)
    with VLM.load(bundle, threads=1) as vlm:
        parts = [{"type": "image", "image": picture}, {"type": "text", "text": "Why?"}]
        turn = {"role": "user", "content": parts}
        other = vlm.generate([turn], max_new_tokens=12, temperature=0)
    with fresh(8) as (base, _), openai.OpenAI(base_url=f"{base}/v1", api_key=KEY) as client:
        first = create(client, asking(url))
        second = create(client, asking(url, text="Why?"))
        said = {"role": "assistant", "content": second.choices[0].message.content}
        turns = [*asking(url, text="Why?"), said, {"role": "user", "content": TEXT}]
        third = create(client, turns)
        chunks = create(client, asking(url), stream=True, stream_options={"include_usage": True})
        *_, streamed = chunks
        seen = metrics(base)
    assert cached(first) == 0 < cached(second) == cached(third) == cached(streamed)
    assert first.choices[0].message.content == wanted.text
    assert second.choices[0].message.content == other.text
    assert wanted.visual_tokens < cached(second) < second.usage.prompt_tokens
    assert second.usage.prompt_tokens == other.prompt_tokens + other.visual_tokens
    counts = [seen[f"luvc_prefix_{n}_total"] for n in ("hits", "misses", "evictions")]
    assert (counts, seen["luvc_prefixes"]) == ([3, 1, 0], 1)
    assert 0 < seen["luvc_prefix_bytes"] <= 8 << 20
    assert seen['luvc_tokens_total{kind="cached"}'] == 3 * cached(second)


def test_clients_at_once_run_a_new_picture_once(fresh, picture, wanted):
    with fresh(8) as (base, _), openai.OpenAI(base_url=f"{base}/v1", api_key=KEY) as client:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: create(client, asking(url_of(picture))), range(8)))
        seen = metrics(base)
    assert {f.choices[0].message.content for f in found} == {wanted.text}
    assert [seen[f"luvc_prefix_{n}_total"] for n in ("hits", "misses")] == [7, 1]
    assert sorted(map(bool, map(cached, found))) == [False] + [True] * 7


def test_one_option_switches_it_off(fresh, picture, wanted):
    with fresh(0) as (base, _), openai.OpenAI(base_url=f"{base}/v1", api_key=KEY) as client:
        found = [create(client, asking(url_of(picture))) for _ in range(2)]
        seen = metrics(base)
    assert [cached(f) for f in found] == [0, 0]
    assert {f.choices[0].message.content for f in found} == {wanted.text}
    assert seen["luvc_prefixes"] == seen["luvc_prefix_misses_total"] == 0
