"""What a scheduler may use, and what it has done."""

from dataclasses import asdict, dataclass

from ...errors import LuvcError


@dataclass(frozen=True)
class Limits:
    """What a scheduler may use.

    Attributes:
        rows: answers made at once; each holds a row of the caches of its layout.
        prefill: prompts run together.
        waiting: requests that wait for a row; more are refused.
        session_mib: host memory of kept conversations between their turns.
        prefix_mib: host memory of what comes up to the last pictures of prompts, run once for all
            requests that begin with it; 0 shares nothing.
        preparing: threads that prepare requests.
    """

    rows: int = 8
    prefill: int = 4
    waiting: int = 128
    session_mib: int = 512
    prefix_mib: int = 512
    preparing: int = 2

    def __post_init__(self):
        for name, value in asdict(self).items():
            least = 0 if name in ("session_mib", "prefix_mib") else 1
            if value < least:
                raise LuvcError(f"limit {name} is {value}; it must be {least} or more")


@dataclass
class Counters:
    """What a scheduler has done: groups of prompts and their rows, steps and their rows."""

    prefills: int = 0
    prefilled_rows: int = 0
    steps: int = 0
    stepped_rows: int = 0
    cancelled: int = 0
    failed: int = 0
