"""What of a processor decides how fast whole numbers are multiplied there."""

from pathlib import Path

OF_WHOLE_NUMBERS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Multiply and add bytes in one instruction, without which they are widened first."""
OF_FLOATS = ("avx2", "avx512f", "asimd")


def found(file: Path = Path("/proc/cpuinfo")) -> list[str] | None:
    """Those that this processor names; None where the system does not tell (Linux does)."""
    if not file.is_file():
        return None
    lines = (x for x in file.read_text().splitlines() if x.startswith(("flags", "Features")))
    if (line := next(lines, None)) is None:
        return None
    flags = line.partition(":")[2].split()
    return [name for name in (*OF_FLOATS, *OF_WHOLE_NUMBERS) if name in flags]
