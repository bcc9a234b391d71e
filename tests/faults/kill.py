"""Kills a command at a file event: what it replaces stays whole, and the next run leaves nothing over.

All events of all commands, which takes minutes:

    python -m tests.faults.kill FOLDER
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
PATHS = {"os.rename": 2, "os.link": 2, "os.symlink": 2}  # arguments that are paths; otherwise one
EVENTS = {"open", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "ctypes.dlsym", *PATHS}
KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Command:
    """A command as it is killed.

    Attributes:
        prepare: puts the earlier output, and what the command reads, into a folder.
        run: the command on that folder; what it returns is not looked at.
        check: fails where the folder's output is not whole.
        rerun: how many of the killed runs are repeated in a short test; None for all.
    """

    prepare: Callable[[Path], object]
    run: Callable[[Path], object]
    check: Callable[[Path], object]
    rerun: int | None = None


def kills(name: str, given: dict[str, str], warm: "Warm", root: Path, most: int | None) -> int:
    """Kill a command at its file events, and hold what is left to its promise.

    Args:
        name: of the command.
        given: folders that commands start from; see `commands.COMMANDS`.
        warm: the process that runs it.
        root: for working folders.
        most: events, evenly chosen; None for all.

    Returns:
        How many events the command has.
    """
    from .commands import commands

    command = commands(given)[name]
    folder = _fresh(root, command)
    before = tree(folder)
    code, events = warm.run(name, folder, None)
    assert code == 0 and events > 1, warm.said()
    command.check(folder)
    names = tree(folder).keys()
    chosen = list(range(1, events + 1))
    if most is not None and most < events:
        chosen = sorted({1 + i * (events - 1) // (most - 1) for i in range(most)})
    again = set(chosen if command.rerun is None or most is None else chosen[-command.rerun :])
    for at in chosen:
        folder = _fresh(root, command)
        code, _ = warm.run(name, folder, at)
        assert code == KILLED, f"{name} at {at} of {events}: {warm.said()}"
        if not _unchanged(before, tree(folder)):
            command.check(folder)
        if at in again:
            code, _ = warm.run(name, folder, None)
            assert code == 0, f"{name} after a kill at {at} of {events}: {warm.said()}"
            command.check(folder)
            left = {n for n in tree(folder) if n not in names and "/part-" not in n}
            assert not left, f"{name} after a kill at {at} of {events}: {left}"
    return events


def tree(folder: Path) -> dict[str, bytes]:
    """Every file with what it holds, and every folder."""
    walked = os.walk(folder)
    paths = (Path(top) / name for top, inner, files in walked for name in (*inner, *files))
    return {p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else b"" for p in paths}


def _unchanged(before: dict[str, bytes], after: dict[str, bytes]) -> bool:
    """Whether all that was there is there; hidden drafts may lie beside it."""
    new = {n for n in after if "/." not in f"/{n}"}
    return new == before.keys() and all(after[n] == data for n, data in before.items())


def _fresh(root: Path, command: Command) -> Path:
    folder = Path(tempfile.mkdtemp(dir=root))
    command.prepare(folder)
    return folder


class Warm:
    """A process that has imported everything, and runs each command in a fork of itself.

    Args:
        given: see `kills`.
    """

    def __init__(self, given: dict[str, str]):
        self._folder = tempfile.TemporaryDirectory(prefix="luvc-kill-")
        self._log = open(f"{self._folder.name}/log", "a+")  # noqa: SIM115
        line = [sys.executable, "-c", "from tests.faults import kill; kill.serve()"]
        self._process = subprocess.Popen(
            [*line, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def run(
        self,
        name: str,
        folder: Path,
        at: int | None,
        number: int = signal.SIGKILL,
        limit: int = resource.RLIM_INFINITY,
    ) -> tuple[int, int]:
        """Run a command.

        Args:
            name: of the command.
            folder: it works in.
            at: before this event it gets the signal; None for never.
            number: of the signal.
            limit: bytes that a file may have.

        Returns:
            Exit code, and number of events.
        """
        assert self._process.stdin and self._process.stdout
        self._log.truncate(0)
        asked = json.dumps([name, str(folder), at, number, limit])
        print(asked, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        assert line, self.said()
        code, events = json.loads(line)
        return code, events

    def said(self) -> str:
        """What the commands printed last."""
        return Path(self._log.name).read_text(errors="replace")[-3000:]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()
        self._folder.cleanup()


@contextmanager
def warm(given: dict[str, str]) -> Iterator[Warm]:
    """A warm process for a block."""
    process = Warm(given)
    try:
        yield process
    finally:
        process.close()


def serve() -> None:
    """The warm process: a line of `Warm.run` in, its answer out."""
    from .commands import commands, imports

    known = commands(json.loads(sys.argv[1]))
    imports()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        name, folder, *about = json.loads(line)
        read, write = os.pipe()
        child = os.fork()
        if not child:
            _run(known[name].run, Path(folder), write, *about)
        os.close(write)
        _, status = os.waitpid(child, 0)
        events = int(os.fdopen(read).read() or 0)
        code = os.waitstatus_to_exitcode(status)
        print(json.dumps([code, events]), file=answers, flush=True)


def _run(
    run: Callable[[Path], object],
    folder: Path,
    answer: int,
    at: int | None,
    number: int,
    limit: int,
) -> None:
    """In the fork: run it, count its events, say how many there were."""
    count = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal count
        if event in EVENTS and _counts(event, arguments, str(folder)):
            count += 1
            if count == at:
                os.kill(os.getpid(), number)

    code = 1
    try:
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        sys.addaudithook(hook)
        run(folder)
        code = 0
    except SystemExit as e:
        code = int(e.code or 0)
    except BaseException as e:
        sys.excepthook(type(e), e, e.__traceback__)
    finally:
        os.write(answer, str(count).encode())
        sys.stdout.flush()
        os._exit(code)


def _counts(event: str, arguments: tuple, folder: str) -> bool:
    """Whether an event changes a file below a folder; a name alone is that of a file in an open folder."""
    if event == "ctypes.dlsym":
        return arguments[1] == "renameat2"
    if event == "open" and not int(arguments[2] or 0) & WRITES:
        return False
    paths = [p for p in arguments[: PATHS.get(event, 1)] if isinstance(p, (str, os.PathLike))]
    texts = [os.fspath(p) for p in paths]
    return any(t.startswith(folder) or (isinstance(t, str) and "/" not in t) for t in texts)


def main() -> None:
    """Every event of every command."""
    from .commands import COMMANDS, make

    root = Path(sys.argv[1]).resolve()
    given = make(root)
    with warm(given) as process:
        for name in COMMANDS:
            print(f"{name}: {kills(name, given, process, root, None)} events", flush=True)


if __name__ == "__main__":
    main()
