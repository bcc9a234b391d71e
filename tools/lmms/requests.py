"""lmms-eval's requests in the runtime's words; imports nothing of lmms-eval.

A request of a chat model holds generation settings, and messages whose parts are {"type": "text",
"text"} or {"type": "image", "url": PIL image or path}.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...engines.sampling import SamplingOptions, not_carried
from ...errors import LuvcError

MARK = "<image>"
"""Stands in a task's text for a picture."""
KNOWN = {
    "max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "seed",
    "until",
}  # fmt: skip


def sampling_options(
    settings: Mapping[str, Any], stops: Sequence[str] = (), longest: int | None = None
) -> SamplingOptions:
    """Options of `VLM.generate` for a task's generation settings.

    As lmms-eval's own models do, it is greedy unless a temperature above 0 or do_sample asks for
    sampling; a temperature of 0 and do_sample=False win over the other.

    Args:
        settings: of a request: `until` (a text or a list), max_new_tokens, temperature, do_sample,
            top_k, top_p, repetition_penalty, seed.
        stops: the model's own stop texts, which `until` adds to.
        longest: max_new_tokens where the task names none; None leaves it to the bundle.

    Raises:
        LuvcError: a setting that would choose other tokens than the runtime can.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    refused = not_carried({k: v for k, v in given.items() if k not in KNOWN})
    if refused:
        shown = ", ".join(f"{name}={value!r:.80}" for name, value in refused.items())
        raise LuvcError(
            f"generation settings {shown} choose tokens in a way that bundles have not: set them back with "
            "--gen_kwargs, or leave the task out"
        )
    until = given.get("until", ())
    options: SamplingOptions = {
        "max_new_tokens": given.get("max_new_tokens", longest),
        "repetition_penalty": given.get("repetition_penalty"),
        "stop": (*stops, *([until] if isinstance(until, str) else until)),
    }
    heat = given.get("temperature")
    if heat == 0 or not given.get("do_sample", bool(heat)):
        return options | {"temperature": 0}
    return options | {
        "do_sample": True,
        "temperature": heat,
        "top_k": given.get("top_k"),
        "top_p": given.get("top_p"),
        "seed": given.get("seed"),
    }


def left_out(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that mean nothing to a bundle, as how pictures are cut: its layouts say that."""
    known = KNOWN | not_carried(dict(settings)).keys() | {"num_beams"}
    return {k: v for k, v in settings.items() if k not in known and v is not None}


def conversation(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A task's messages as `VLM.generate` takes them.

    Where a message's texts hold `<image>` as often as it has pictures, they stand there; other texts
    are left as they are.

    Raises:
        LuvcError: a video, a sound or anything else that is no text and no picture.
    """
    return [{"role": m["role"], "content": _content(m["content"])} for m in messages]


def batches(settings: Sequence[Mapping[str, Any]], size: int) -> Iterator[list[int]]:
    """Places of requests with equal settings, at most `size` at a time, in order."""
    groups: dict[str, list[int]] = {}
    for place, one in enumerate(settings):
        groups.setdefault(json.dumps(one, sort_keys=True, default=repr), []).append(place)
    for places in groups.values():
        for first in range(0, len(places), size):
            yield places[first : first + size]


def _content(content: str | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    parts = [_part(part) for part in content]
    pictures = [part for part in parts if part["type"] == "image"]
    marks = sum(part["text"].count(MARK) for part in parts if part["type"] == "text")
    if not pictures or marks != len(pictures):
        return parts
    waiting, placed = iter(pictures), []
    for part in parts:
        if part["type"] == "text":
            first, *rest = part["text"].split(MARK)
            placed.append({"type": "text", "text": first})
            for text in rest:
                placed += [next(waiting), {"type": "text", "text": text}]
    return [part for part in placed if part.get("text") != ""]


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    kind = part.get("type")
    if kind == "text":
        return {"type": "text", "text": part["text"]}
    if kind == "image":
        return {"type": "image", "image": part["url"]}
    raise LuvcError(f"it holds a part of type {kind!r:.80}; bundles are asked about pictures here")
