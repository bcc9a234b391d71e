"""Inputs that failed, kept as files: found/SURFACE/KIND-HASH, tried again with every test run."""

import hashlib
import re
import traceback
from dataclasses import dataclass
from pathlib import Path

KEPT = Path(__file__).parent / "found"
ALIKE = 2
"""Inputs that are kept of one fault."""


@dataclass(frozen=True)
class Finding:
    """An input that gave neither a result nor a LuvcError within the bounds.

    Attributes:
        surface: where.
        kind: of fault, such as "TypeError-parse-41", "hang", "memory" or "crash".
        data: the input.
        text: what was seen.
    """

    surface: str
    kind: str
    data: bytes
    text: str

    def keep(self, folder: Path) -> Path | None:
        """Write it among the others of its surface -> its file; None where there are enough alike."""
        place = folder / self.surface
        place.mkdir(parents=True, exist_ok=True)
        file = place / f"{self.kind}-{hashlib.sha256(self.data).hexdigest()[:12]}"
        alike = [p for p in place.glob(f"{self.kind}-*") if p.suffix != ".txt"]
        if len(alike) >= ALIKE or file.exists():
            return None
        file.write_bytes(self.data)
        file.with_suffix(".txt").write_text(f"{self.text}\n", errors="backslashreplace")
        return file


def kind_of(error: BaseException) -> str:
    """A fault by its type and the last of our own lines that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/tests/fuzz/" not in f.filename and _is_ours(f.filename)]
    last = ours[-1] if ours else frames[-1]
    name = f"{type(error).__name__}-{Path(last.filename).stem}-{last.name}"
    return re.sub(r"[^\w-]", "_", name)[:100]


def _is_ours(file: str) -> bool:
    root = str(Path(__file__).parents[2])
    return file.startswith(root) and "/.venv" not in file[len(root) :]


def kept() -> list[tuple[str, Path]]:
    """(surface, file) of every kept input."""
    files = sorted(p for p in KEPT.glob("*/*") if p.suffix != ".txt" and p.is_file())
    return [(p.parent.name, p) for p in files]
