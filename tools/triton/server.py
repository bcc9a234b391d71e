"""One tritonserver process: its command, whether it is ready and whole, its end."""

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import urllib.request
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ... import strict_json
from ...errors import LuvcError

STACK = 1 << 30  # bytes; 2.51 copies an HTTP body to its stack, and 8 MiB end at a picture of 6
GRACE = 10.0  # seconds for the server to end by itself; open requests are given EXIT of them
EXIT = 5
STUB = "triton_python_backend_stub"
# the server is on this machine: a proxy would look for it on its own
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Ports:
    """Where a server listens."""

    http: int
    grpc: int
    metrics: int

    @classmethod
    def free(cls) -> "Ports":
        """Three ports that nobody listens on."""
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
            for s in sockets:
                s.bind(("127.0.0.1", 0))
            return cls(*(s.getsockname()[1] for s in sockets))


@dataclass(frozen=True)
class Binary:
    """A tritonserver, with the Python environment of its models where it is not the system's."""

    path: Path
    backends: Path | None = None
    venv: Path | None = None

    def environment(self) -> dict[str, str]:
        """Variables it must be started with."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        if self.venv is None:
            return environment
        ask = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
        python = self.venv / "bin" / "python"
        libraries = subprocess.check_output([python, "-c", ask], text=True).strip()
        bundled = self.path.parents[3] / "nvidia_pytriton.libs"
        # a model's process finds its environment by the first python3 on PATH
        environment["PATH"] = f"{self.venv / 'bin'}:{environment['PATH']}"
        environment["LD_LIBRARY_PATH"] = f"{libraries}:{bundled}"
        return environment


def find_server(place: Path | None) -> Binary:
    """The server to start: a folder of install.sh, a binary, or what .triton or PATH holds.

    Raises:
        LuvcError: there is none; says how to install one.
    """
    root = (place or Path(".triton")).resolve()
    inside = root / "server/pytriton/tritonserver/bin/tritonserver"
    if inside.is_file():
        return Binary(inside.resolve(), root / "backends", root / "venv")
    found = shutil.which(place or "tritonserver")
    if found is None:
        raise LuvcError(
            f"there is no tritonserver at {place or '.triton or on PATH'}: run `bash "
            "tools/triton/install.sh` for one on the CPU, or start this in NVIDIA's container"
        )
    return Binary(Path(found))


class Server:
    """A running server, in a process group of its own; a context manager that leaves nothing behind.

    Args:
        binary: what to start.
        repository: folder of models.
        ports: where to listen.
        host: address to listen on.
        options: more of tritonserver's options.
        log: file for its output, which is added to; None: this process's.

    Raises:
        LuvcError: the log cannot be written; nothing was started.
    """

    def __init__(
        self,
        binary: Binary,
        repository: Path,
        ports: Ports,
        host: str = "127.0.0.1",
        options: Sequence[str] = (),
        log: Path | None = None,
    ):
        self.ports = ports
        self.host = host
        self.log = log
        self._id = f"luvc-{uuid.uuid4().hex[:12]}"
        command = [str(binary.path), f"--id={self._id}", f"--model-repository={repository}"]
        if binary.backends is not None:
            command += [f"--backend-directory={binary.backends}", "--allow-gpu-metrics=false"]
        command += ["--disable-auto-complete-config", f"--exit-timeout-secs={EXIT}"]
        for name, port in vars(ports).items():
            command += [f"--{name}-address={host}", f"--{name}-port={port}"]
        with contextlib.ExitStack() as stack, _stack_limit(STACK):
            out = stack.enter_context(_open_log(log)) if log else None
            self._process = subprocess.Popen(
                [*command, *options],
                stdout=out,
                stderr=subprocess.STDOUT if out else None,
                env=binary.environment(),
                start_new_session=True,
            )
        self._stopped = False
        self._models: dict[int, str] = {}
        # shared memory of its models' processes, which a crash would leave behind
        self._memory: set[Path] = set()

    @property
    def pid(self) -> int:
        """Of tritonserver."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    @property
    def _url(self) -> str:
        """Where this machine reaches its HTTP interface."""
        host = "127.0.0.1" if self.host == "0.0.0.0" else self.host
        return f"http://{host}:{self.ports.http}/v2"

    def ready(self) -> bool:
        """Whether it and all its models are ready, and the one that answers is really this one."""
        try:
            with DIRECT.open(f"{self._url}/health/ready", timeout=2):
                pass
            with DIRECT.open(self._url, timeout=2) as response:
                return strict_json.parse(response.read()).get("name") == self._id
        except (OSError, ValueError):
            return False

    def dead_models(self) -> list[str]:
        """Models whose process has died since the last call, without having been unloaded.

        A process of a model that is unloaded or replaced ends too; but then the model is not ready, or
        another process has taken its place.
        """
        now = self._stubs()
        if now.keys() != self._models.keys():
            self._memory |= self._shared_memory()
        gone = set(self._models.values()) - set(now.values())
        self._models = now
        if not gone or self.exit_code is not None:
            return []
        ready = {name for name in gone if self._says_ready(name)}
        # a model that was loaded again since its process was looked for is ready with a new one
        return sorted(ready - set(self._stubs().values()))

    def _says_ready(self, model: str) -> bool:
        try:
            with DIRECT.open(f"{self._url}/models/{model}/ready", timeout=2):
                return True
        except OSError:
            return False

    def _stubs(self) -> dict[int, str]:
        """Living model processes of the server, by pid."""
        found = {}
        try:
            tasks = Path(f"/proc/{self.pid}/task").iterdir()
            children = {int(c) for t in tasks for c in (t / "children").read_text().split()}
        except OSError:
            return found
        for pid in children:
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                words = line.split("\0")
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                if STUB in words[0] and state != "Z":
                    found[pid] = Path(words[1]).parents[1].name  # REPOSITORY/model/1/model.py
        return found

    def tail(self, size: int = 3000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-size:] if self.log else "(see above)"

    def stop(self, grace: float = GRACE) -> bool:
        """Stop it and its models' processes -> whether it ended by itself with exit code 0.

        Args:
            grace: seconds it is given to end by itself.
        """
        self._memory |= self._shared_memory()
        self._stopped = True
        self._process.terminate()
        ended = True
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            ended = False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # a group of our own
        code = self._process.wait()
        for path in self._memory:
            path.unlink(missing_ok=True)
        return ended and code == 0

    def _shared_memory(self) -> set[Path]:
        """Files in /dev/shm that the models' processes map; a killed server leaves them."""
        found = set()
        for pid in self._stubs():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                    name = line.split()[-1]
                    if name.startswith("/dev/shm/triton_python_backend"):
                        found.add(Path(name))
        return found

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_) -> None:
        if not self._stopped:
            self.stop()


def _open_log(log: Path) -> BinaryIO:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError as e:
        raise LuvcError(f"log {log} cannot be written: {e}; give the name of another file") from e


@contextlib.contextmanager
def _stack_limit(size: int):
    """Threads of processes started meanwhile get stacks of this size, where the system permits it."""
    kind = resource.RLIMIT_STACK
    soft, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        size = min(size, hard)
    resource.setrlimit(kind, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))
