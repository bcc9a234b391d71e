"""compute-sanitizer's memcheck and racecheck over the kernels' checks: verdicts in sanitizer.json."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from luvc.tools.bench.machine import provenance

from ..files import write_json

# Options of each tool. PyTorch tries driver calls that may fail: such errors are no findings.
TOOLS = {"memcheck": ("--report-api-errors", "no"), "racecheck": ()}
TOOLKIT = "/usr/local/cuda/bin"  # where it lies when PATH does not name it
# Every tensor an allocation of its own: inside a shared one no access is out of bounds.
SETTINGS = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)")
CHECKS = [sys.executable, "-m", "benchmarks.gpu.kernels", "--check-only", "--few"]
SECONDS = 200


def verdict(tool: str, checks: list[str] = CHECKS, seconds: float = SECONDS) -> dict[str, Any]:
    """Run one tool -> its count of findings, or why there is none."""
    name = "compute-sanitizer"
    program = shutil.which(name) or shutil.which(name, path=TOOLKIT)
    if program is None:
        return {"clean": None, "problem": f"{name} is not installed"}
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [program, "--tool", tool, *TOOLS[tool], *checks],
            env=os.environ | SETTINGS,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"clean": None, "problem": f"not finished after {seconds:.0f} s"}
    text = done.stdout + done.stderr
    found = SUMMARY.search(text)
    lines = [line for line in text.splitlines() if line.startswith("=========")]
    result = {"seconds": round(time.perf_counter() - start, 1), "exit_code": done.returncode}
    if found is None:
        said = lines or text.splitlines()
        return result | {"clean": None, "problem": " | ".join(said[-3:]) or "no output"}
    count = int(found[1])
    clean = count == 0 and done.returncode == 0
    return result | {"clean": clean, "findings": count, "lines": [] if clean else lines[:40]}


def run(target: Path) -> int:
    """All tools, each written when it is done -> exit code: 0 when all are clean."""
    report = provenance("python -m benchmarks.gpu.kernels --sanitize") | {"tools": {}}
    for tool in TOOLS:
        report["tools"][tool] = found = verdict(tool)
        write_json(target, report)
        print(tool, {True: "clean", False: "NOT clean", None: "no verdict"}[found["clean"]], found)
    return 0 if all(t["clean"] for t in report["tools"].values()) else 1
