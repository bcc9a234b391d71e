"""Steps in a process of their own: each one's value or exact error is kept, also when the process dies.

A library that ends the process (TensorRT-RTX does) is a result like any other here.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from luvc.errors import LuvcError

Found = dict[str, Any]


class Steps:
    """The worker's side: results go to standard output, whatever libraries print to standard error."""

    def __init__(self):
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """Run one step -> its value; its error is written down and ends the process quietly."""
        self._say({"step": name})
        start = time.perf_counter()
        try:
            value = work()
        except BaseException as error:
            text = str(error).strip() or repr(error)
            found = {"error": f"{type(error).__name__}: {text}"}
            if isinstance(error, LuvcError):
                found = {"error": text, "refused": True}
            self._say({"step": name, "seconds": _since(start)} | found)
            raise SystemExit(0) from error
        shown = value if isinstance(value, (str, int, float, list, dict)) else None
        self._say({"step": name, "seconds": _since(start), "value": shown})
        return value

    def _say(self, data: Found) -> None:
        self._answers.write(json.dumps(data) + "\n")
        self._answers.flush()


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 2)


def watch(arguments: Sequence[str], seconds: float, last: str) -> list[Found]:
    """Run `python arguments...`, which makes steps.

    Args:
        arguments: such as ["-m", "benchmarks.gpu.rtx", ...].
        seconds: after which the process is ended.
        last: its last step; once that one ended, the process may end as it likes.

    Returns:
        Every step that began: "seconds" with "value" or "error"; "refused" marks errors that say what is
        missing or what to mend. "exit" says how the process ended, where it did badly after all that.
    """
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as logged:
        process = subprocess.Popen([sys.executable, *arguments], stdout=said, stderr=logged)
        try:
            code, late = process.wait(seconds), False
        except subprocess.TimeoutExpired:
            process.kill()
            code, late = process.wait(), True
        said.seek(0)
        logged.seek(0)
        lines, log = said.read().splitlines(), logged.read().splitlines()
    found: dict[str, Found] = {}
    for line in lines:
        data = json.loads(line)
        found.setdefault(data["step"], {}).update(data)
    problem = f"not finished after {seconds:g} s" if late else _ending(code)
    unfinished = next((s for s in found.values() if "seconds" not in s), None)
    said_all = "seconds" in found.get(last, {}) or any("error" in s for s in found.values())
    if unfinished is None and not said_all:
        unfinished = found.setdefault("start", {"step": "start"})
    if unfinished is not None:
        unfinished |= {"error": problem, "log": log[-8:]}
    elif code:
        list(found.values())[-1]["exit"] = problem
    return list(found.values())


def _ending(code: int) -> str:
    if code < 0:
        return f"the process ended by {signal.Signals(-code).name} ({-code})"
    return f"the process ended with exit code {code}"
