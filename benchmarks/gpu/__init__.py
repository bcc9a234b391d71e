"""Evidence on an NVIDIA GPU: scripts that build, check and time in one go; README.md says how."""

from pathlib import Path

RESULTS = Path(__file__).parent.parent / "results" / "gpu"
