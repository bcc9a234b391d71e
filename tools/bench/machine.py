"""What ran a benchmark: machine, versions, date, command."""

import datetime
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from ...cores import cores
from ...versions import versions


def provenance(command: str | None = None) -> dict[str, Any]:
    """What a results file says of its making.

    Args:
        command: how to repeat it; default this process's own command line.
    """
    own = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {
        "command": command or own,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
    }


def machine() -> dict[str, Any]:
    """CPU, cores this process may use, memory, system, and the GPU where there is one."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if os.name == "posix" else 0
    return {
        "cpu": _cpu() or platform.processor() or platform.machine(),
        "cores": cores(),
        "memory_gib": round(pages / 2**30, 1),
        "system": platform.system(),
        **({"gpu": found} if (found := gpu()) else {}),
    }


def gpu() -> dict[str, Any] | None:
    """Name, driver, compute capability and memory of the first NVIDIA GPU, or None without one."""
    fields = "name,driver_version,compute_cap,memory.total"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL, timeout=30)
        name, driver, capability, mib = (part.strip() for part in text.splitlines()[0].split(","))
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None
    return {
        "name": name,
        "driver": driver,
        "capability": capability,
        "memory_gib": round(int(mib) / 1024, 1),
    }


def _cpu() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), None)
