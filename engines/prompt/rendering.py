"""Renders chat templates in a process of their own (template_worker.py), one for all bundles of a program."""

import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...errors import LuvcError

LONGEST_TEMPLATE = 1_000_000
"""Characters; the longest published ones have some ten thousands."""
LONGEST_TEXT = 16_000_000
"""Characters of a rendered conversation."""
MEMORY = 512 << 20
"""Bytes of the process, most of it left to templates."""
CPU_SECONDS = 5.0
"""Of one render; the longest conversations take some hundredths."""
WALL_SECONDS = 60.0
"""Of one render, where the machine gives it no time."""
WORKER = Path(__file__).with_name("template_worker.py")
MEND = "mend chat_template.jinja and export, or do not use this bundle"


class RenderError(Exception):
    """A template that raised something, for these messages or for all."""


class Renderer:
    """The process, started when it is first needed and again after a template has ended it.

    Args:
        cpu_seconds: of one render, as the processor counts them.
    """

    def __init__(self, cpu_seconds: float = CPU_SECONDS):
        self._cpu_seconds = cpu_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start the process now, beside other work, rather than with the first render."""
        with self._lock:
            self._running()

    def render(self, template: str, values: dict[str, Any]) -> str:
        """What a template makes of its variables.

        Args:
            template: in Jinja's language, for Hugging Face's environment.
            values: of JSON's types.

        Raises:
            RenderError: the template raised something.
            LuvcError: it is too long, or takes more time or memory than it may.
        """
        if len(template) > LONGEST_TEMPLATE:
            raise LuvcError(
                f"the checkpoint's chat template has {len(template)} characters, the limit is "
                f"{LONGEST_TEMPLATE}: {MEND}"
            )
        try:
            request = json.dumps([template, values]).encode() + b"\n"
        except ValueError as e:  # an integer of thousands of digits
            raise RenderError(str(e)) from e
        with self._lock:
            reply = self._ask(self._running(), request)
        if "error" in reply:
            raise RenderError(reply["error"])
        if "bound" in reply:
            raise LuvcError(
                f"the checkpoint's chat template does not end within its bounds ({reply['bound']}; it has "
                f"{self._cpu_seconds:g} s, {MEMORY >> 20} MiB and {LONGEST_TEXT} characters): shorten "
                f"the conversation, {MEND}"
            )
        return reply["text"]

    def close(self) -> None:
        """End the process; the next render starts another."""
        with self._lock:
            self._end()

    def forget(self) -> None:
        """Leave the process to the program that this one is a forked copy of."""
        self._lock, self._process = threading.Lock(), None

    # ---- the work
    def _running(self) -> subprocess.Popen:
        if self._process is None or self._process.poll() is not None:
            self._end()
            bounds = (self._cpu_seconds, WALL_SECONDS, MEMORY, LONGEST_TEXT)
            self._process = subprocess.Popen(
                [_python(), "-S", "-P", str(WORKER), *map(str, bounds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(_libraries())},
            )
        return self._process

    def _ask(self, process: subprocess.Popen, request: bytes) -> dict[str, str]:
        assert process.stdin and process.stdout
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(request)
                process.stdin.flush()
            line = process.stdout.readline()
        except BaseException:  # between a question and its answer
            self._end()
            raise
        if line.endswith(b"\n"):
            reply = json.loads(line)
            if reply.get("bound") == MemoryError.__name__:  # what it has is in pieces
                self._end()
            return reply
        code = process.wait()
        self._end()
        late = code in (-signal.SIGPROF, -signal.SIGALRM)
        return {"bound": "time" if late else f"its process ended with {code}"}

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _python() -> str:
    """The interpreter; where Python is a part of another program, the one on the PATH."""
    own = Path(sys.executable or "").name.startswith("python")
    found = sys.executable if own else shutil.which("python3")
    if not found:
        raise LuvcError("python3, which renders chat templates, is not on the PATH: add its folder")
    return found


def _libraries() -> list[str]:
    """Folders in which Jinja and what it needs are installed."""
    specs = [find_spec(name) for name in ("jinja2", "markupsafe")]
    return sorted({str(Path(s.origin).parent.parent) for s in specs if s and s.origin})


renderer = Renderer()
"""The one of this program."""

os.register_at_fork(after_in_child=renderer.forget)
atexit.register(renderer.close)
