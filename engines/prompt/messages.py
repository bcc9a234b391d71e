"""Messages as callers write them, checked before anything reads them: every text is text, every key known."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from ...errors import LuvcError, shown
from ...strict_json import DEEPEST

Message = Mapping[str, object]
"""{"role", "content"}; content is a text or a list of parts, see `VLM.generate`."""
Messages = Sequence[Message]
Turn = Mapping[str, Any]  # a message that was read
MIXED = "images and videos cannot share a prompt: ask about one kind at a time"
VISUALS = ("image", "image_url", "video")
"""Types of parts that show something; `image_url` is OpenAI's name of an image."""
SOURCES = ("image", "path", "url", "image_url")  # keys of what an image part shows
KEYS = {
    "text": {"type", "text"},
    "image": {"type", *SOURCES},
    "image_url": {"type", *SOURCES},
    "video": {"type", "video", "fps"},
}


def is_batch(
    messages: Messages | Sequence[Messages],
) -> TypeGuard[Sequence[Messages]]:
    """Whether these are several conversations and not one.

    Raises:
        LuvcError: neither.
    """
    if isinstance(messages, Mapping):
        raise LuvcError("messages must be a list of messages; put this one into a list")
    if not _is_list(messages):
        raise LuvcError(_wanted(messages))
    return bool(messages) and not isinstance(messages[0], Mapping)


def read_messages(messages: Any) -> list[dict[str, Any]]:
    """The messages as plain dictionaries; what they show is not opened yet.

    As for Hugging Face, a key whose value is None is not there.

    Raises:
        LuvcError: something that is no message, no text, or a key that means nothing here.
    """
    if not _is_list(messages) or not len(messages):
        raise LuvcError(_wanted(messages))
    plain = [_message(message) for message in messages]
    if plain[-1]["role"] == "assistant":
        raise LuvcError("the last message is the assistant's; the user's turn must come last")
    return plain


def read_part(part: Any) -> dict[str, Any]:
    """A part of a content, checked; what it shows is not opened.

    Raises:
        LuvcError: a type that is none, no text, or a key that means nothing here.
    """
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(kind, str) or kind not in KEYS:
        raise LuvcError(
            f"a content part is of type 'text', 'image', 'image_url' or 'video', got {_shown(part)}"
        )
    given = {k: v for k, v in part.items() if v is not None}
    unknown = [k for k in given if k not in KEYS[kind]]
    if unknown:
        raise LuvcError(f"a part of type {kind!r} has no {unknown[0]!r:.80} here; leave it out")
    if kind == "text":
        return {"type": "text", "text": check_text(given.get("text"), "the text of a part")}
    sources = [key for key in SOURCES if key in given]
    if kind != "video" and len(sources) > 1:
        raise LuvcError(f"an image part shows one picture, got {' and '.join(sources)}")
    _check_url(given.get("image_url"))
    return given


def visual_parts(messages: Sequence[Turn]) -> list[Mapping[str, Any]]:
    """The parts of read messages that show something, in order.

    Raises:
        LuvcError: images beside videos.
    """
    contents = (message.get("content", "") for message in messages)
    found = [p for c in contents if not isinstance(c, str) for p in c if p["type"] in VISUALS]
    if len({part["type"] == "video" for part in found}) > 1:
        raise LuvcError(MIXED)
    return found


def with_visuals(
    messages: Sequence[Turn], change: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Read messages with each part that shows something changed."""

    def changed(content: Any) -> Any:
        if isinstance(content, str):
            return content
        return [change(part) if part["type"] in VISUALS else part for part in content]

    return [
        {key: changed(value) if key == "content" else value for key, value in message.items()}
        for message in messages
    ]


def bare(part: Mapping[str, Any]) -> dict[str, Any]:
    """What a template needs of a part that shows something."""
    return {"type": "video" if part["type"] == "video" else "image"}


def with_frames(messages: Sequence[Turn], count: int) -> list[dict[str, Any]]:
    """Bare messages with so many images in the place of each video."""
    images = [{"type": "image"}] * count

    def changed(content: Any) -> Any:
        if isinstance(content, str):
            return content
        return [new for p in content for new in (images if p["type"] == "video" else [p])]

    return [
        {key: changed(value) if key == "content" else value for key, value in message.items()}
        for message in messages
    ]


def characters(messages: Sequence[Turn]) -> int:
    """Characters of what read messages say, their roles and whatever stands beside their contents."""
    return sum(_said(k, value) for message in messages for k, value in message.items())


def _said(key: str, value: Any) -> int:
    if key != "content" or isinstance(value, str):
        return _letters(value)
    return sum(len(part["text"]) for part in value if part["type"] == "text")


def _letters(data: Any) -> int:
    if isinstance(data, str):
        return len(data)
    if isinstance(data, Mapping):
        return sum(_letters(key) + _letters(value) for key, value in data.items())
    return sum(map(_letters, data)) if isinstance(data, (list, tuple)) else 0


def check_text(text: Any, what: str) -> str:
    """A text that can be written as UTF-8, which tokenizers need.

    Raises:
        LuvcError: something else.
    """
    if not isinstance(text, str):
        raise LuvcError(f"{what} must be a text, got {_shown(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise LuvcError(
            f"{what} is not valid Unicode: half a surrogate pair at character {e.start}, as undecodable "
            "bytes leave it; mend the text's encoding"
        ) from e
    return str(text)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def _wanted(messages: Any) -> str:
    return (
        "messages must be a list of {'role': ..., 'content': ...}, with a user's turn last; "
        f"got {_shown(messages)}"
    )


def _shown(value: Any) -> str:
    """A value as errors show it: briefly, and arrays and pictures by their type alone."""
    if value is None or isinstance(value, (str, int, float, Mapping, list, tuple)):
        return shown(value)
    return type(value).__name__


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise LuvcError(f"a message needs 'role' and 'content', got {_shown(message)}")
    given = {k: v for k, v in message.items() if v is not None}
    if "role" not in given or len(given) < 2:  # tool calls may stand without content
        raise LuvcError(f"a message needs 'role' and 'content', got {_shown(dict(message))}")
    read = {check_text(k, "a message's key"): _value(k, v) for k, v in given.items()}
    check_text(read["role"], "a message's role")
    return read


def _value(key: str, value: Any) -> Any:
    if key != "content":
        return _plain(value, f"{key!r} of a message", DEEPEST)
    if isinstance(value, str):
        return check_text(value, "a message's content")
    if not _is_list(value):
        raise LuvcError(f"content is a text or a list of parts, got {_shown(value)}")
    return [read_part(part) for part in value]


def _check_url(source: Any) -> None:
    """OpenAI's {"url": ..., "detail": ...}: how much detail is seen is the bundle's to say."""
    if isinstance(source, Mapping):
        for key, value in source.items():
            if key != "url" and value is not None and (key, value) != ("detail", "auto"):
                raise LuvcError(
                    f"an image_url has no {key!r:.80} of {_shown(value)} here; leave it out"
                )


def _plain(value: Any, what: str, depth: int) -> Any:
    """JSON's types alone: templates are code, which other objects' methods would be open to."""
    if isinstance(value, str):
        return check_text(value, what)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if depth and isinstance(value, Mapping):
        inner = value.items()
        return {check_text(k, what): _plain(v, what, depth - 1) for k, v in inner}
    if depth and isinstance(value, (list, tuple)):
        return [_plain(inner, what, depth - 1) for inner in value]
    kind = "what is nested too deep" if not depth else type(value).__name__
    raise LuvcError(f"{what} holds texts, numbers, lists and objects, got {kind}")
