"""Many conversations at once on one model: `Scheduler(vlm).submit(messages).answer`."""

from .scheduler import Limits, Scheduler
from .ticket import Busy, Ticket

__all__ = ["Busy", "Limits", "Scheduler", "Ticket"]
