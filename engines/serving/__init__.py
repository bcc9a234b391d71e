"""Many conversations at once on one model: `Scheduler(vlm).submit(messages).answer`."""

from .limits import Limits
from .scheduler import Scheduler
from .ticket import Busy, Ticket

__all__ = ["Busy", "Limits", "Scheduler", "Ticket"]
