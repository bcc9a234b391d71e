"""What comes up to a prompt's last picture, run once and kept for every request that begins with it.

A request that finds nothing kept runs that part of its prompt alone, keeps a copy of the caches, and goes
on from there; one that finds it goes on from the copy. So both compute the same, and a hit's answer is the
miss's. Where caches depend on the question, the visual embeddings are kept. Letters: V visual tokens, D
hidden size.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock

import numpy as np

from ..bundle.layout import Layout
from ..prompt.prefix import fingerprint, marks_of, prefix_length, unshared
from ..prompt.processing import Processor, Prompt
from .pool import Parked


@dataclass(eq=False)
class Prefix:
    """What is kept of a prefix, on the host.

    Attributes:
        parked: the caches' slots in use; None where they depend on the question.
        stages: visual tokens left from each pruned layer on.
        embeds: [1, V, D] instead of caches.
        users: requests that hold it.
    """

    parked: Parked | None = None
    stages: dict[int, int] = field(default_factory=dict)
    embeds: np.ndarray | None = None
    users: int = 0

    @property
    def bytes(self) -> int:
        """Host memory it takes."""
        embeds = 0 if self.embeds is None else self.embeds.nbytes
        return embeds + (self.parked.bytes if self.parked else 0)


@dataclass(eq=False)
class Claim:
    """One request's part in a prefix.

    Attributes:
        key: what the prefix is kept by.
        length: ids of the prompt that are in it; 0 where only embeddings are shared.
        makes: it is to run the prefix, and others wait for that.
        held: what it goes on from; stays until released.
    """

    key: bytes
    length: int
    makes: bool = False
    held: Prefix | None = None


class Prefixes:
    """Kept prefixes; the one used longest ago goes first, and none that a request holds.

    Args:
        processor: of the bundle.
        limit: bytes of all of them; 0 keeps nothing.

    Attributes:
        hits: requests that went on from something kept.
        misses: requests that ran what was then to be kept.
        evicted: prefixes that had to go.
    """

    def __init__(self, processor: Processor, limit: int):
        self._processor, self._manifest = processor, processor.manifest
        self.limit = limit
        self.hits, self.misses = 0, 0
        self.evicted = 0
        self._held: OrderedDict[bytes, Prefix] = OrderedDict()
        self._made: dict[bytes, Claim] = {}
        self._marks: dict[str, set[int]] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def bytes(self) -> int:
        """Host memory of all of them."""
        with self._lock:
            return self._used()

    def refusals(self) -> dict[str, str]:
        """Why caches are not shared, by the name of each layout with pictures of which that is so."""
        found = {x.name: self._refusal(x, 0) for x in self._manifest.pictured if self.limit}
        return {name: why for name, why in found.items() if why}

    def claim(self, prompt: Prompt) -> Claim | None:
        """A request's part in the prefix of its prompt; None where nothing of it can be kept."""
        if not self.limit or not prompt.layout.images:
            return None
        length = self._length(prompt)
        claim = Claim(fingerprint(prompt, length), length)
        self.settled(claim)
        return claim

    def settled(self, claim: Claim | None) -> bool:
        """Whether a request need not wait for another one: it holds the prefix, or is to make it."""
        if claim is None or claim.makes or claim.held is not None:
            return True
        with self._lock:
            found = self._held.get(claim.key)
            if found is not None:
                found.users += 1
                claim.held = found
            elif claim.key not in self._made:
                self._made[claim.key] = claim
                claim.makes = True
            return claim.makes or claim.held is not None

    def use(self, claim: Claim) -> Prefix:
        """What a settled claim holds."""
        assert claim.held is not None
        with self._lock:
            self.hits += 1
            if claim.key in self._held:
                self._held.move_to_end(claim.key)
        return claim.held

    def keep(self, claim: Claim, made: Prefix) -> None:
        """What the maker has run, kept where those in use leave room for it."""
        with self._lock:
            self.misses += 1
            self._made.pop(claim.key, None)
            claim.makes = False
            if self._make_room(made.bytes):
                self._held[claim.key] = made

    def release(self, claim: Claim | None) -> None:
        """The request needs it no more, or will not make it; harmless when done twice."""
        if claim is None:
            return
        with self._lock:
            if claim.held is not None:
                claim.held.users -= 1
                claim.held = None
            if claim.makes:
                self._made.pop(claim.key, None)
                claim.makes = False

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._held.clear()

    # ---- the work
    def _refusal(self, layout: Layout, text: int) -> str | None:
        """None, or why caches of the layout with `text` text tokens are not shared."""
        size = self._manifest.kv_bytes(layout, text)
        if size > self.limit:
            return (
                f"they take {size / 2**20:.3g} MiB, and all may take {self.limit / 2**20:.3g} MiB"
            )
        return unshared(self._manifest.language, layout)

    def _length(self, prompt: Prompt) -> int:
        """Ids whose caches are shared, 0 where none are."""
        layout, language = prompt.layout, self._manifest.language
        if layout.name not in self._marks:
            self._marks[layout.name] = marks_of(self._processor.tokenizer, language, layout)
        length = prefix_length(prompt, language.image_token_id, self._marks[layout.name])
        return 0 if self._refusal(layout, length - layout.visual_tokens) else length

    def _used(self) -> int:
        return sum(p.bytes for p in self._held.values())

    def _make_room(self, size: int) -> bool:
        """Evict what nobody holds until `size` bytes fit; nothing goes when they cannot."""
        idle = [key for key, p in self._held.items() if not p.users]
        free = self.limit - self._used()
        if free + sum(self._held[key].bytes for key in idle) < size:
            return False
        while free < size:
            free += self._held.pop(idle.pop(0)).bytes
            self.evicted += 1
        return True
