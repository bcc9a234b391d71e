"""What of a processor decides how fast whole numbers are multiplied there."""

from pathlib import Path

OF_WHOLE_NUMBERS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Multiply and add bytes in one instruction, without which they are widened first."""
OF_FLOATS = ("avx2", "avx512f", "asimd")


def found() -> list[str]:
    """Those that this processor names; none where the system does not tell (Linux does)."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    lines = (x for x in text.splitlines() if x.startswith(("flags", "Features")))
    flags = set(next(lines, "").partition(":")[2].split())
    return [name for name in (*OF_FLOATS, *OF_WHOLE_NUMBERS) if name in flags]
