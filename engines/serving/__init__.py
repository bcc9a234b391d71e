"""Many conversations at once on one model: `Scheduler(vlm).submit(messages).answer`."""

from .limits import Limits
from .scheduler import Scheduler
from .ticket import Busy, Cancelled, Ticket

__all__ = ["Busy", "Cancelled", "Limits", "Scheduler", "Ticket"]
