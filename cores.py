"""How many cores this process may use: of the machine, and of the container it runs in."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")


def cores(groups: Path = CONTROL_GROUPS) -> int:
    """Cores this process may run on, or its container's processor time in cores where that is less.

    Args:
        groups: where Linux tells the limits of control groups, version 2 or 1.
    """
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([own, *(max(1, math.ceil(quota)) for quota in _quotas(groups))])


def pool_size(threads: int, groups: Path = CONTROL_GROUPS) -> int:
    """Threads for a library that takes 0 as its own choice.

    It would choose by the machine's cores, and a container that may use few of them is throttled.

    Args:
        threads: as asked for; 0 for as many as there are cores to use.
        groups: see `cores`.

    Returns:
        `threads`, or instead of 0 the usable cores, where the machine has more than these.
    """
    if threads:
        return threads
    usable = cores(groups)
    return usable if usable < (os.cpu_count() or 1) else 0


def _quotas(groups: Path) -> Iterator[float]:
    """Processor time that control groups grant, in cores; nothing where there is no limit."""
    first = groups / "cpu"
    for files in (
        [groups / "cpu.max"],
        [first / "cpu.cfs_quota_us", first / "cpu.cfs_period_us"],
    ):
        try:
            quota, period = (int(n) for f in files for n in f.read_text().split())
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
        if quota > 0:  # version 1 says -1 for no limit
            yield quota / period
