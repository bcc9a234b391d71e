"""What the server says, in OpenAI's forms: completions, chunks of a stream, usage, errors."""

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...engines.answer import Answer, TokenLogprob

REASONS = {"stop": "stop", "length": "length", "capacity": "length", "cancelled": "stop"}
"""OpenAI's finish_reason for each of ours."""
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Reply:
    """The head that the parts of one reply share.

    Attributes:
        model: the name that is served.
        spell: the text of one token.
        id: of the reply.
        created: when, seconds since 1970.
    """

    model: str
    spell: Callable[[int], str]
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answer: Answer, logprobs: bool) -> dict[str, Any]:
        """The answer at once, with its log-probabilities where they were asked for."""
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        choice = {"message": message, "finish_reason": REASONS[answer.finish_reason]}
        if logprobs:
            choice["logprobs"] = {
                "content": [self._told(t) for t in answer.logprobs],
                "refusal": None,
            }
        return self._of("chat.completion", choice) | {"usage": usage(answer), "luvc": used(answer)}

    def begun(self) -> bytes:
        """The first chunk: who speaks."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None}, None)

    def piece(self, text: str) -> bytes:
        """More text."""
        return self._chunk({"content": text}, None)

    def ended(self, answer: Answer) -> bytes:
        """The chunk with the reason."""
        choice = {"delta": {}, "finish_reason": REASONS[answer.finish_reason]}
        return event(self._of("chat.completion.chunk", choice) | {"luvc": used(answer)})

    def counted(self, answer: Answer) -> bytes:
        """The last chunk of a stream that asked for its usage."""
        body = self._of("chat.completion.chunk", {}) | {"choices": [], "usage": usage(answer)}
        return event(body)

    def _chunk(self, delta: dict[str, Any], reason: str | None) -> bytes:
        choice = {"delta": delta, "finish_reason": reason}
        return event(self._of("chat.completion.chunk", choice))

    def _told(self, token: TokenLogprob) -> dict[str, Any]:
        likeliest = [self._logprob(*pair) for pair in token.likeliest]
        return self._logprob(token.token_id, token.logprob) | {"top_logprobs": likeliest}

    def _logprob(self, token_id: int, logprob: float) -> dict[str, Any]:
        text = self.spell(token_id)
        # part of a character has no text of its own
        data = None if "\ufffd" in text else list(text.encode())
        return {"token": text, "logprob": logprob, "bytes": data}

    def _of(self, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return head | {"choices": [{"index": 0, "logprobs": None, **choice}]}


def usage(answer: Answer) -> dict[str, Any]:
    """Tokens of a request: visual ones are part of the prompt and counted apart too."""
    prompt, completion = answer.prompt_tokens + answer.visual_tokens, len(answer.token_ids)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": answer.reused_tokens,
            "visual_tokens": answer.visual_tokens,
        },
    }


def used(answer: Answer) -> dict[str, Any]:
    """What OpenAI's forms have no place for: layout and ratio that were used, and what was done unasked."""
    return {"layout": answer.layout, "ratio": answer.ratio, "notes": list(answer.notes)}


def failure(
    message: str, status: int, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """An error's body."""
    kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def event(body: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return (
        b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
    )
