"""luvc-serve: serve a bundle by OpenAI's API, or start Triton on a repository that luvc-triton wrote."""

import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ... import console
from ...engines import VLM
from ...engines.bundle.folder import MANIFEST
from ...engines.serving import Limits, Scheduler
from ...errors import LuvcError
from ..client_messages import Bounds
from ..options import Backend, PrefixCache, Threads
from ..triton import serve as triton
from .heap import give_large_blocks_back
from .settings import Settings

OF_TRITON = ("cpu", "server", "pid_file", "log", "extra")
"""Options that only a repository has; `host` and `port` are of both, all others of bundles."""
OF_BOTH = ("folder", "host", "port")


Folder = Annotated[Path, typer.Argument(help="Bundle, or folder that luvc-triton wrote.")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(help="HTTP; Triton's gRPC and metrics follow.", max=65535)]
Name = Annotated[
    str | None, typer.Option(help="What clients call the model; default the bundle's name.")
]
Key = Annotated[
    str | None, typer.Option(envvar="LUVC_API_KEY", help="Clients must send it as Bearer.")
]
Origins = Annotated[
    list[str] | None, typer.Option(help="Web page that may ask (CORS), or *; repeat.")
]
ImageHosts = Annotated[
    list[str] | None,
    typer.Option(help="Host that http(s) pictures are fetched from; repeat. Default none."),
]
Rows = Annotated[int, typer.Option(help="Answers made at once.")]
Prefill = Annotated[int, typer.Option(help="Prompts run together.")]
Waiting = Annotated[int, typer.Option(help="Requests that may wait; more get status 429.")]
ImageMib = Annotated[int, typer.Option(help="Largest image file.", min=1)]
Megapixels = Annotated[int, typer.Option(help="Largest image.", min=1)]
BodyMib = Annotated[int, typer.Option(help="Largest body of a request.", min=1)]
Grace = Annotated[int, typer.Option(help="Seconds that a stop waits for answers.", min=0)]
Cpu = Annotated[bool, typer.Option("--cpu", help="Triton: start without GPU.")]
TritonFolder = Annotated[
    Path | None, typer.Option(help="Triton: folder of install.sh, or a tritonserver binary.")
]
PidFile = Annotated[Path | None, typer.Option(help="Triton: write the launcher's pid.")]
Log = Annotated[Path | None, typer.Option(help="Triton: server's log; default the terminal.")]
Extra = Annotated[
    list[str] | None, typer.Argument(help="Triton, after --: options for tritonserver.")
]


def serve(
    context: typer.Context,
    folder: Folder,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    served_model_name: Name = None,
    api_key: Key = None,
    origin: Origins = None,
    image_host: ImageHosts = None,
    rows: Rows = 8,
    prefill: Prefill = 4,
    waiting: Waiting = 128,
    prefix_cache: PrefixCache = Limits.prefix_mib,
    image_mib: ImageMib = 16,
    megapixels: Megapixels = 50,
    body_mib: BodyMib = 64,
    grace: Grace = 30,
    backend: Backend = "auto",
    threads: Threads = 0,
    cpu: Cpu = False,
    server: TritonFolder = None,
    pid_file: PidFile = None,
    log: Log = None,
    extra: Extra = None,
) -> None:
    """Serve until this process gets SIGTERM or Ctrl-C; exit code 0 after a clean stop."""
    if not _is_bundle(context, folder):
        triton.serve(folder, host, port, cpu, server, pid_file, log, extra)
        return
    settings = Settings(
        name=served_model_name or folder.resolve().name,
        api_key=api_key,
        origins=tuple(origin or ()),
        bounds=Bounds(image_mib=image_mib, megapixels=megapixels),
        image_hosts=tuple(image_host or ()),
        body_mib=body_mib,
    )
    limits = Limits(rows=rows, prefill=prefill, waiting=waiting, prefix_mib=prefix_cache)
    with _loaded(folder, backend, threads) as vlm, Scheduler(vlm, limits) as scheduler:
        _run(scheduler, settings, host, port, grace)


def _loaded(folder: Path, backend: str, threads: int) -> VLM:
    _check_installed()
    give_large_blocks_back()
    with console.Steps() as steps:
        steps("loading the bundle")
        return VLM.load(folder, backend=backend, threads=threads)


def _is_bundle(context: typer.Context, folder: Path) -> bool:
    """Whether the folder is a bundle, and not a repository.

    Raises:
        LuvcError: an option of the other kind is given, which would do nothing.
    """
    is_bundle = (folder / MANIFEST).exists()
    other = OF_TRITON if is_bundle else set(context.params) - {*OF_TRITON, *OF_BOTH}
    for name in other:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            flag = f"--{name.replace('_', '-')}" if name != "extra" else "what follows --"
            kinds = ("a bundle", "Triton") if is_bundle else ("a Triton repository", "bundles")
            raise LuvcError(f"{folder} is {kinds[0]}, and {flag} is of {kinds[1]}: leave it out")
    return is_bundle


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


def _run(scheduler: Scheduler, settings: Settings, host: str, port: int, grace: int) -> None:
    """Serve until a signal; what runs then has `grace` seconds.

    Raises:
        LuvcError: the address cannot be listened on.
    """
    import uvicorn

    from .app import Service, application

    for layout, why in scheduler.prefixes.refusals().items():
        console.err.print(f"layout {layout}: requests share no caches, as {escape(why)}")

    class Announcing(uvicorn.Server):
        async def startup(self, sockets=None) -> None:
            await super().startup(sockets)
            for one in self.servers if self.started else ():
                bound = one.sockets[0].getsockname()
                url = f"http://{bound[0]}:{bound[1]}/v1"
                console.err.print(f"[green]ready[/green] {escape(settings.name)} at {url}")

    config = uvicorn.Config(
        application(Service(scheduler, settings)),
        host,
        port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=grace,
    )
    # uvicorn raises the signal again once it has stopped, which is then no reason to die of
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    refusal = LuvcError(f"{host}:{port} cannot be listened on: choose another --port or --host")
    server = Announcing(config)
    try:
        server.run()
    except SystemExit as error:  # uvicorn's own way to say so
        raise refusal from error
    if not server.started:
        raise refusal


def main() -> None:
    """Entry point."""
    console.run_command(serve)


if __name__ == "__main__":
    main()
