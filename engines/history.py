"""What a conversation says, and how much of it is in its caches.

A later turn equals a fresh prefill of the whole conversation when all images stand in the first turn,
the chat template only appends, and the ids in the caches say what the conversation says: visual tokens
come before any later text, attention is causal and the SPU scores visual tokens alone, so later text
can change neither which tokens are kept nor what they hold. Where the template rewrites earlier turns,
a new image arrives, the last answer's ids say more than its text (a stop text was cut off, a special
token was generated), or the prompt looks at all of itself, the whole conversation is run afresh.
"""

from collections.abc import Sequence
from typing import Any

from .processing import Processor, Prompt
from .reply import Reply
from .stopping import is_end


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
        # the conversation so far, rendered, the last answer included; None: not what is cached
        self._text: str | None = None
        self._pending: list[int] = []  # generated ids that are not in the caches yet

    def continuation(self, prompt: Prompt, room: int) -> list[int]:
        """Ids to run on top of the caches; empty when the conversation must be run afresh.

        The generated ids are taken as they are: tokenising their text again may give others.

        Args:
            prompt: the conversation with its new turn.
            room: text tokens the caches can still take.
        """
        if self._layout != prompt.layout.name or self.processor.manifest.language.whole_prompt:
            return []
        if self._text is None or not prompt.text.startswith(self._text):
            return []
        rest = self.processor.tokenise(prompt.text[len(self._text) :], start=False)
        new = self._pending + rest
        return new if len(new) < room else []

    def begin(self, prompt: Prompt, stages: dict[int, int]) -> None:
        """The whole prompt was run into fresh caches."""
        self.cached, self.stages = list(prompt.input_ids), stages
        self._layout, self._text = prompt.layout.name, None

    def close(
        self, turns: Sequence[dict[str, Any]], prompt: Prompt, reply: Reply, length: int
    ) -> None:
        """Add the answered turns; `length` ids are in the caches, of prompt and answer together."""
        fed = length - len(self.cached)
        self.cached += reply.ids[:fed]
        spoken = [t for t in reply.ids if not is_end(t, reply.sampling)]
        self._pending = spoken[fed:]  # the template writes the end, which stands last
        said = reply.tokenizer.decode(spoken)
        self._text = prompt.text + reply.text if said == reply.text else None
        answer = {"role": "assistant", "content": [{"type": "text", "text": reply.text}]}
        self.messages += [*turns, answer]
