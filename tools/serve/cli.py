"""luvc-serve: serve a bundle by OpenAI's API, or start Triton on a repository that luvc-triton wrote."""

import signal
from pathlib import Path
from typing import Annotated

import click
import typer

from ... import console
from ...engines import VLM
from ...engines.bundle.folder import MANIFEST
from ...engines.serving import Limits, Scheduler
from ...errors import LuvcError
from ..client_messages import Bounds
from ..options import Backend, Threads
from ..triton import serve as triton

OF_TRITON = ("cpu", "server", "pid_file", "log", "extra")
"""Options that only a repository has; `host` and `port` are of both, all others of bundles."""
OF_BOTH = ("folder", "host", "port")


def serve(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Bundle, or folder that luvc-triton wrote.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="HTTP; Triton's gRPC and metrics follow.", min=0, max=65535)
    ] = 8000,
    served_model_name: Annotated[
        str | None, typer.Option(help="What clients call the model; default the bundle's name.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="LUVC_API_KEY", help="Clients must send it as Bearer.")
    ] = None,
    origin: Annotated[
        list[str] | None, typer.Option(help="Web page that may ask (CORS), or *; repeat.")
    ] = None,
    image_host: Annotated[
        list[str] | None,
        typer.Option(help="Host that http(s) pictures are fetched from; repeat. Default none."),
    ] = None,
    rows: Annotated[int, typer.Option(help="Answers made at once.")] = 8,
    prefill: Annotated[int, typer.Option(help="Prompts run together.")] = 4,
    waiting: Annotated[
        int, typer.Option(help="Requests that may wait; more get status 429.")
    ] = 128,
    image_mib: Annotated[int, typer.Option(help="Largest image file.", min=1)] = 16,
    megapixels: Annotated[int, typer.Option(help="Largest image.", min=1)] = 50,
    body_mib: Annotated[int, typer.Option(help="Largest body of a request.", min=1)] = 64,
    grace: Annotated[int, typer.Option(help="Seconds that a stop waits for answers.", min=0)] = 30,
    backend: Backend = "auto",
    threads: Threads = 0,
    cpu: Annotated[bool, typer.Option("--cpu", help="Triton: start without GPU.")] = False,
    server: Annotated[
        Path | None, typer.Option(help="Triton: folder of install.sh, or a tritonserver binary.")
    ] = None,
    pid_file: Annotated[Path | None, typer.Option(help="Triton: write the launcher's pid.")] = None,
    log: Annotated[
        Path | None, typer.Option(help="Triton: server's log; default the terminal.")
    ] = None,
    extra: Annotated[
        list[str] | None, typer.Argument(help="Triton, after --: options for tritonserver.")
    ] = None,
) -> None:
    """Serve until this process gets SIGTERM or Ctrl-C; exit code 0 after a clean stop."""
    is_bundle = (folder / MANIFEST).exists()
    _check_given(context, folder, is_bundle)
    if not is_bundle:
        triton.serve(folder, host, port, cpu, server, pid_file, log, extra)
        return
    _check_installed()
    from .app import Service, Settings, application

    bounds = Bounds(image_mib=image_mib, megapixels=megapixels)
    limits = Limits(rows=rows, prefill=prefill, waiting=waiting)
    with console.Steps() as steps:
        steps("loading the bundle")
        vlm = VLM.load(folder, backend=backend, threads=threads)
    with vlm, Scheduler(vlm, limits) as scheduler:
        settings = Settings(
            name=served_model_name or folder.resolve().name,
            api_key=api_key,
            origins=tuple(origin or ()),
            bounds=bounds,
            image_hosts=tuple(image_host or ()),
            body_mib=body_mib,
        )
        _run(application(Service(scheduler, settings)), settings.name, host, port, grace)


def _check_given(context: click.Context, folder: Path, is_bundle: bool) -> None:
    """Refuse options of the other kind of folder, which would do nothing."""
    other = OF_TRITON if is_bundle else set(context.params) - {*OF_TRITON, *OF_BOTH}
    for name in other:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            flag = f"--{name.replace('_', '-')}" if name != "extra" else "what follows --"
            kinds = ("a bundle", "Triton") if is_bundle else ("a Triton repository", "bundles")
            raise LuvcError(f"{folder} is {kinds[0]}, and {flag} is of {kinds[1]}: leave it out")


def _check_installed() -> None:
    try:
        import prometheus_client
        import starlette
        import uvicorn
    except ImportError as error:
        raise LuvcError(
            f"{error.name} is not installed: pip install 'luvc-export[serve]'"
        ) from error
    assert prometheus_client and starlette and uvicorn


def _run(app: object, name: str, host: str, port: int, grace: int) -> None:
    """Serve until a signal; what runs is finished within `grace` seconds.

    Raises:
        LuvcError: the address cannot be listened on.
    """
    import uvicorn

    class Announcing(uvicorn.Server):
        async def startup(self, sockets=None) -> None:
            await super().startup(sockets)
            for one in self.servers if self.started else ():
                bound = one.sockets[0].getsockname()
                console.err.print(
                    f"[green]ready[/green] {name} at http://{bound[0]}:{bound[1]}/v1",
                    soft_wrap=True,
                )

    config = uvicorn.Config(
        app, host, port, log_level="warning", access_log=False, timeout_graceful_shutdown=grace
    )
    server = Announcing(config)
    # uvicorn raises the signal again once it has stopped, which is then no reason to die of
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        server.run()
    except SystemExit as error:  # its own way to say that it did not start
        raise LuvcError(
            f"{host}:{port} cannot be listened on: choose another --port or --host"
        ) from error
    if not server.started:
        raise LuvcError(f"{host}:{port} cannot be listened on: choose another --port or --host")


def main() -> None:
    """Entry point."""
    console.run_command(serve)


if __name__ == "__main__":
    main()
