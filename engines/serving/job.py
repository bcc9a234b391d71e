"""One request on its way through a scheduler."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ..answer import Timing
from ..history import History
from ..prompt.messages import visual_parts
from ..prompt.processing import Prompt
from ..prompt.wishes import Wish
from ..reply import Reply
from ..sampling import Sampling
from .conversations import Conversation, Conversations
from .prefixes import Claim, Prefixes
from .ticket import Ticket

if TYPE_CHECKING:
    from ..runtime import VLM


@dataclass(eq=False)
class Job:
    """A request and what has become of it.

    Attributes:
        turns: messages; of a kept conversation, those that are new in it.
        wish: what is asked of the layout.
        prompt: rendered and tokenised; set by `prepare`.
        reply: the answer as it grows; set by `begin`.
        begun: whether its prompt has been run.
        claim: its part in the prefix of its prompt; None where that is not shared.
        pixels: of its pictures, when it needs the vision graph.
        embedded: what `VLM.embed` gave, when that was done ahead.
        new: ids to run on top of the conversation's row; empty when the prompt is run afresh.
        reused: ids that were in the caches already: the conversation's, or those of a kept prefix.
    """

    turns: list[Any]
    sampling: Sampling
    wish: Wish
    key: str | None
    ticket: Ticket
    submitted: float = field(default_factory=perf_counter)
    prompt: Prompt = field(init=False)
    reply: Reply = field(init=False)
    begun: bool = False
    conversation: Conversation | None = None
    claim: Claim | None = None
    pixels: Any = None
    embedded: tuple[np.ndarray | None, Timing] | None = None
    new: list[int] = field(default_factory=list)
    reused: int = 0
    stages: dict[int, int] = field(default_factory=dict)
    timing: Timing = field(default_factory=Timing)
    first_token: float = 0.0

    @property
    def alone(self) -> bool:
        """Whether it goes on from caches, or has pictures still to be seen: no others are run with it."""
        held = self.claim is not None and self.claim.held is not None and self.claim.length > 0
        return bool(self.new) or held or self.unseen

    @property
    def unseen(self) -> bool:
        """Whether it makes a prefix after all that another one was to make."""
        made = self.pixels is not None or self.embedded is not None
        return self.claim is not None and self.claim.makes and not made

    def prepare(
        self, vlm: "VLM", conversations: Conversations, prefixes: Prefixes, ahead: bool
    ) -> None:
        """Prompt and pixels, and with `ahead` the embeddings too, unless those are kept or being made.

        Raises:
            LuvcError: the request cannot be met.
        """
        history: History | None = None
        if self.key is not None:
            self.turns = vlm.processor.opened(self.turns)
            history = History(vlm.processor) if visual_parts(self.turns) else None
            if history is None:
                self.conversation = conversations.take(self.key, None)
        earlier: list[dict] = []
        if self.conversation:
            earlier = self.conversation.history.messages
            self.wish = self.wish if self.wish.given else self.conversation.wish
        self.prompt = vlm.processor.prompt([*earlier, *self.turns], self.wish)
        if self.conversation is not None and self.conversation.parked is not None:
            room = self.conversation.parked.reached.room(vlm.manifest, 0)
            self.new = self.conversation.history.continuation(self.prompt, room)
        if not self.new and self.prompt.images:
            self.claim = prefixes.claim(self.prompt)
            if self.claim is None or self.claim.makes:
                self.see(vlm, ahead)
        if self.key is not None and history is not None:
            self.conversation = conversations.take(self.key, history, self.wish)

    def see(self, vlm: "VLM", ahead: bool) -> None:
        """Pixels, or with `ahead` the embeddings.

        Raises:
            LuvcError: a picture cannot be met.
        """
        start = perf_counter()
        self.pixels = vlm.processor.pixels(self.prompt)
        self.timing = Timing(pixels_ms=(perf_counter() - start) * 1e3)
        if ahead:
            embeds, timing = vlm.embed([self.prompt], [self.pixels])
            self.embedded = embeds, replace(timing, pixels_ms=self.timing.pixels_ms)
            self.pixels = None

    def begin(self, vlm: "VLM", timing: Timing, start: float) -> None:
        """Its prompt has been run, in a group that took `timing` from the time `start` on."""
        done = self.timing.pixels_ms + (self.embedded[1].vision_ms if self.embedded else 0.0)
        waited = (start - self.submitted) * 1e3 - done
        self.timing = replace(timing, pixels_ms=self.timing.pixels_ms, queue_ms=max(0.0, waited))
        self.pixels = self.embedded = None
        cached = self.conversation.history.cached if self.conversation else self.prompt.input_ids
        self.reply = Reply(vlm.processor.tokenizer, self.sampling, cached)
        self.begun = True

    def accept(self, logits: np.ndarray) -> bool:
        """Choose the next token from logits [vocabulary] -> whether the answer has ended."""
        self.ticket.add(self.reply.accept(logits))
        self.first_token = self.first_token or perf_counter()
        return self.reply.ended

    def end(self, reason: str) -> None:
        """End an answer that cannot or must not go on."""
        self.ticket.add(self.reply.finish(reason))

    def finish(self, vlm: "VLM") -> None:
        """Hand out the answer."""
        steps = len(self.reply.ids) - 1
        spent = (perf_counter() - self.first_token) * 1e3
        timing = replace(self.timing, decode_ms_per_token=spent / steps if steps else 0.0)
        answer = vlm.answer(self.prompt, self.reply, self.stages, timing, self.reused)
        self.ticket.finish(answer)

    def fail(self, conversations: Conversations, prefixes: Prefixes, error: BaseException) -> None:
        """There will be no answer, whatever the reason."""
        prefixes.release(self.claim)
        if not isinstance(error, Exception):  # would end the thread that reads the ticket
            wrapped = RuntimeError(f"the request was ended by {type(error).__name__}: {error}")
            wrapped.__cause__ = error
            error = wrapped
        try:
            self.release(conversations)
        finally:
            self.ticket.fail(error)

    def release(self, conversations: Conversations) -> None:
        """Its conversation is what it was before the turn; one whose caches went on is forgotten."""
        if self.key is None or self.conversation is None:
            return
        if self.begun:
            conversations.drop(self.key)
        else:
            conversations.release(self.key, self.conversation)


def run_together(ready: Sequence[Job], most: int) -> list[Job]:
    """At most so many requests: the oldest, and those of its layout whose prompts can be run with it."""
    if not ready or most < 1:
        return []
    head, *others = ready
    if head.alone:
        return [head]
    layout = head.prompt.layout.name
    alike = [job for job in others if not job.alone and job.prompt.layout.name == layout]
    return [head, *alike][:most]
