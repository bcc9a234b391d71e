"""Conversations between two of their turns, kept by key within a bound of memory."""

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock

from ...errors import LuvcError
from ..history import History
from ..prompt.video_files import FileFrames
from ..prompt.wishes import NOTHING, Wish
from .pool import Parked
from .ticket import Busy


@dataclass
class Conversation:
    """A kept conversation and its row of the caches, which is parked while no turn of it runs.

    Attributes:
        wish: what its first turn asked of the layout; later turns that ask nothing run there, too.
    """

    history: History
    wish: Wish = NOTHING
    parked: Parked | None = None
    running: bool = field(default=False, repr=False)

    @property
    def bytes(self) -> int:
        """Host memory of the row and of the pictures."""
        parts = [
            p for m in self.history.messages for p in m.get("content", ()) if isinstance(p, dict)
        ]
        images = [p["image"] for p in parts if p["type"] == "image"]
        videos = [p["video"] for p in parts if p["type"] == "video"]
        frames = [frame for v in videos if not isinstance(v, FileFrames) for frame in v]
        pictures = sum(3 * image.width * image.height for image in (*images, *frames))
        return (self.parked.bytes if self.parked else 0) + pictures


class Conversations:
    """Kept conversations by key; the one used longest ago is evicted first.

    Args:
        limit: bytes of all of them between their turns.

    Attributes:
        evicted: how many had to go.
    """

    def __init__(self, limit: int):
        self.limit, self.evicted = limit, 0
        self._held: OrderedDict[str, Conversation] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def bytes(self) -> int:
        """Host memory of all of them."""
        with self._lock:
            return sum(s.bytes for s in self._held.values())

    def take(self, key: str, new: History | None, wish: Wish = NOTHING) -> Conversation:
        """The conversation of a key for one turn.

        Args:
            key: any text.
            new: what to begin, when the turn brings a picture; None continues.
            wish: of what begins.

        Raises:
            LuvcError: the key is unknown.
            Busy: a turn of it is running.
        """
        with self._lock:
            held = self._held.get(key)
            if held is not None and held.running:
                raise Busy(f"conversation {key!r} is answering another request; wait for its end")
            if new is not None:
                held = self._held[key] = Conversation(new, wish)
            elif held is None:
                raise LuvcError(
                    f"conversation {key!r} is unknown or was evicted: begin it (again) with a picture"
                )
            held.running = True
            self._held.move_to_end(key)
            return held

    def keep(self, key: str, kept: Conversation) -> None:
        """Its turn has ended well: keep it for the next, at the cost of older ones."""
        with self._lock:
            kept.running = False
            self._held.move_to_end(key)
            idle = [k for k, s in self._held.items() if not s.running]
            used = sum(self._held[k].bytes for k in idle)
            while used > self.limit:
                gone = self._held.pop(idle.pop(0))
                used -= gone.bytes
                self.evicted += 1

    def release(self, key: str, kept: Conversation) -> None:
        """Its turn was refused: it is what it was before."""
        with self._lock:
            kept.running = False
            if kept.parked is None:
                self._held.pop(key, None)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._held.clear()

    def drop(self, key: str) -> None:
        """Forget a conversation."""
        with self._lock:
            self._held.pop(key, None)
