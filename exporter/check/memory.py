"""How much memory this process may still take."""

from pathlib import Path

from ...cores import CONTROL_GROUPS

_FILES = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}


def free_memory(groups: Path = CONTROL_GROUPS) -> int:
    """Bytes that are free on the machine, or in the container this runs in where that is less.

    Args:
        groups: where Linux tells the limits of control groups, version 2 or 1.
    """
    import psutil

    free = psutil.virtual_memory().available
    for folder in (groups, groups / "memory"):
        for limit, used in _FILES.items():
            try:
                most, taken = int((folder / limit).read_text()), int((folder / used).read_text())
            except (OSError, ValueError):  # no such group, or "max": no limit
                continue
            free = min(free, most - taken + _reclaimable(folder))
    return max(0, free)


def _reclaimable(folder: Path) -> int:
    """Bytes of files that the kernel gives back when memory is short."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    found = {name: int(value) for name, value in map(str.split, lines)}
    files = ("inactive_file", "active_file")  # of a group and those in it; in version 1 "total_..."
    return sum(found.get(f"total_{name}", found.get(name, 0)) for name in files)
