"""What ran a benchmark: machine, versions, date, command."""

import datetime
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any


def provenance(command: str | None = None) -> dict[str, Any]:
    """What a results file says of its making.

    Args:
        command: how to repeat it; default this process's own command line.
    """
    from ...exporter.assemble import versions

    own = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {
        "command": command or own,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
    }


def machine() -> dict[str, Any]:
    """CPU, cores this process may use, memory and system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if os.name == "posix" else 0
    return {
        "cpu": _cpu() or platform.processor() or platform.machine(),
        "cores": cores,
        "memory_gib": round(pages / 2**30, 1),
        "system": platform.system(),
    }


def _cpu() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), None)
