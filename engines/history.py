"""What a conversation says, and how much of it is in its caches.

A later turn equals a fresh prefill of the whole conversation when all images stand in the first turn,
the chat template only appends, and the ids in the caches say what the conversation says: visual tokens
come before any later text, attention is causal and the SPU scores visual tokens alone, so later text
can change neither which tokens are kept nor what they hold. Where the template rewrites earlier turns,
a new image arrives, the last answer's ids say more than its text (a stop text was cut off, a special
token was generated), or the prompt looks at all of itself, the whole conversation is run afresh.

Ids are compared, and what they say in their place, never texts alone: a tokenizer may write a blank
before a word that it does not write at the start of a text (SentencePiece), so that an answer is one text
by itself and another behind its prompt.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from .prompt.processing import Processor, Prompt
from .reply import Reply
from .stopping import is_end

ANCHOR = 8
"""Ids before a place that decide how the ids behind it are written: a character's bytes, a blank."""


class History:
    """Turns of one conversation beside the ids whose keys and values are cached.

    Args:
        processor: of the bundle.

    Attributes:
        messages: the turns so far.
        cached: ids in the caches, in order.
        stages: visual tokens left from each pruned layer on.
    """

    def __init__(self, processor: Processor):
        self.processor = processor
        self.messages: list[dict[str, Any]] = []
        self.cached: list[int] = []
        self.stages: dict[int, int] = {}
        self._layout = ""
        self._pending: list[int] = []  # generated ids that are not in the caches yet

    def continuation(self, prompt: Prompt, room: int) -> list[int]:
        """Ids to run on top of the caches; empty when the conversation must be run afresh.

        The generated ids are taken as they are: tokenising their text again may give others.

        Args:
            prompt: the conversation with its new turn.
            room: text tokens the caches can still take.
        """
        language = self.processor.manifest.language
        if self._layout != prompt.layout.name or language.whole_prompt:
            return []
        rest = self._behind([*self.cached, *self._pending], prompt.input_ids)
        if rest is None or language.image_token_id in rest:
            return []
        new = [*self._pending, *rest]
        return new if len(new) < room else []

    def begin(self, prompt: Prompt, stages: dict[int, int]) -> None:
        """The whole prompt was run into fresh caches."""
        self.cached, self.stages = list(prompt.input_ids), stages
        self._layout, self._pending = prompt.layout.name, []

    def close(
        self, turns: Sequence[dict[str, Any]], prompt: Prompt, reply: Reply, length: int
    ) -> None:
        """Add the answered turns; `length` ids are in the caches, of prompt and answer together."""
        fed = length - len(self.cached)
        self.cached += reply.ids[:fed]
        left = reply.ids[fed:]  # the template writes the end
        self._pending = [t for t in left if not is_end(t, reply.sampling)]
        answer = {"role": "assistant", "content": [{"type": "text", "text": reply.text}]}
        self.messages += [*turns, answer]

    def _behind(self, said: list[int], prompt: list[int]) -> list[int] | None:
        """The ids of a prompt behind the part that says what `said` does; None if it has no such part."""
        same = next((i for i, (a, b) in enumerate(zip(said, prompt, strict=False)) if a != b), None)
        if same is None:  # one begins with the other
            return prompt[len(said) :] if len(said) <= len(prompt) else None
        start = max(0, same - ANCHOR)
        wanted = self._text(said[start:])

        def length(end: int) -> int:
            return len(self._text(prompt[start:end]))

        end = bisect_left(range(len(prompt)), len(wanted), lo=same, key=length)
        return prompt[end:] if self._text(prompt[start:end]) == wanted else None

    def _text(self, ids: list[int]) -> str:
        return self.processor.tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)
