"""luvc-serve: start tritonserver on a repository, watch it, stop it.

Triton neither restarts a model's process that has died nor says so: its model stays ready and fails
every request (seen with 2.51). The launcher watches these processes and starts the server anew when one
is gone; until the models are loaded again, nothing is ready.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ... import console
from ...errors import LuvcError
from ...files import whole
from ...places import check_file
from .server import Ports, Server, find_server

RESTARTS = 3  # in a row; a server that lived for LIVED seconds counts anew
LIVED = 60.0


def serve(
    repository: Annotated[Path, typer.Argument(help="Folder that luvc-triton wrote.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="HTTP; gRPC and metrics follow.")] = 8000,
    cpu: Annotated[bool, typer.Option("--cpu", help="Start without GPU.")] = False,
    server: Annotated[
        Path | None, typer.Option(help="Folder of install.sh, or a tritonserver binary.")
    ] = None,
    pid_file: Annotated[Path | None, typer.Option(help="Write the launcher's pid there.")] = None,
    log: Annotated[Path | None, typer.Option(help="Server's log; default the terminal.")] = None,
    extra: Annotated[
        list[str] | None, typer.Argument(help="After --: options for tritonserver.")
    ] = None,
) -> None:
    """Serve a repository until this process gets SIGTERM or Ctrl-C; exit code 0 after a clean stop."""
    check_file(pid_file, "--pid-file")
    ports = Ports(port, port + 1, port + 2)
    options = [*(["--model-config-name=cpu"] if cpu else []), *(extra or [])]
    binary = find_server(server)
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, _: stop.append(n))
    if pid_file is not None:
        with whole(pid_file) as draft:
            draft.write_text(f"{os.getpid()}\n")
    try:
        clean = _keep_running(lambda: Server(binary, repository, ports, host, options, log), stop)
    finally:
        if pid_file is not None:
            pid_file.unlink(missing_ok=True)
    raise typer.Exit(0 if clean else 1)


def _keep_running(start, stop: list[int]) -> bool:
    """Run servers one after another until told to stop -> whether the last one ended cleanly."""
    left = RESTARTS
    while True:
        began = time.monotonic()
        with start() as running:
            reason = _watch(running, stop)
            # after a death the server waits in vain for what that process was doing
            clean = running.stop() if reason is None else running.stop(grace=1)
        if reason is None:
            return clean
        left = RESTARTS if time.monotonic() - began > LIVED else left - 1
        if left < 1:
            raise LuvcError(f"{reason}, {RESTARTS} times in a row; the server's log says why")
        console.err.print(f"[yellow]{reason}; starting the server again")


def _watch(running: Server, stop: list[int]) -> str | None:
    """Wait until told to stop (None) or something has died; says what."""
    announced = False
    while not stop:
        if running.exit_code is not None:
            if not announced:
                raise LuvcError(
                    f"tritonserver ended with code {running.exit_code}:\n{running.tail()}"
                )
            return f"tritonserver ended with code {running.exit_code}"
        if not announced and running.ready():
            announced = True
            p = running.ports
            console.err.print(
                f"[green]ready[/green] http {running.host}:{p.http}, grpc {p.grpc}, metrics {p.metrics}"
            )
        dead = running.dead_models()
        if dead:
            return f"the process of {', '.join(dead)} has died"
        time.sleep(0.1)
    return None


def main() -> None:
    """Entry point."""
    console.run_command(serve)


if __name__ == "__main__":
    sys.exit(main())
