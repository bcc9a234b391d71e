"""luvc-triton: write a bundle as a model repository of Triton Inference Server."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ... import console
from ...engines.bundle.folder import Bundle
from ...engines.serving import Limits
from ...errors import LuvcError
from ..client_messages import Bounds
from ..options import AsJson, BundleFolder, PrefixCache, Threads


def triton(
    bundle: BundleFolder,
    output: Annotated[Path, typer.Option(help="Repository folder to write.")],
    rows: Annotated[int, typer.Option(help="Answers made at once.")] = 8,
    prefill: Annotated[int, typer.Option(help="Prompts run together.")] = 4,
    waiting: Annotated[int, typer.Option(help="Requests that may wait; more are refused.")] = 128,
    session_mib: Annotated[
        int, typer.Option(help="Host memory of conversations between their turns.")
    ] = 512,
    prefix_cache: PrefixCache = Limits.prefix_mib,
    image_mib: Annotated[int, typer.Option(help="Largest image file a client may send.")] = 16,
    megapixels: Annotated[int, typer.Option(help="Largest image a client may send.")] = 50,
    threads: Threads = 0,
    vision_inside: Annotated[
        bool, typer.Option("--vision-inside", help="No vision model of its own.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a repository that tritonserver serves, on this bundle's GPU and on any CPU."""
    try:
        from .repository import Options, write
    except ImportError as error:
        raise LuvcError(
            f"{error.name} is not installed: pip install 'luvc-export[triton]'"
        ) from error
    limits = Limits(rows, prefill, waiting, session_mib, prefix_cache)
    bounds = Bounds(image_mib=image_mib, megapixels=megapixels)
    with console.Steps(quiet=as_json) as steps:
        steps("checking the bundle")
        loaded = Bundle.load(bundle)
        steps(f"writing {output}")
        models = write(loaded, output, Options(limits, bounds, threads, vision_inside))
    mib = {x.name: loaded.manifest.kv_bytes(x) / 2**20 for x in loaded.manifest.layouts}
    if as_json:
        found = {"repository": str(output), "models": models, "rows": rows, "cache_mib": mib}
        typer.echo(json.dumps(found, indent=1))
        return
    _show(output, models, rows, mib, engines=bool(loaded.manifest.engines))


def _show(output: Path, models: list[str], rows: int, mib: dict[str, float], engines: bool) -> None:
    """What was written, the device memory it takes for each layout, and how to serve it."""
    table = Table("layout", "caches of a request, MiB", f"of {rows} rows, MiB")
    for name, value in mib.items():
        table.add_row(name, f"{value:.1f}", f"{rows * value:.0f}")
    cpu = " (--cpu where its GPU is not)" if engines else ""
    console.show(
        f"wrote {output}: {', '.join(models)}",
        table,
        f"serve it:\n  luvc-serve {output}{cpu}",
    )


def main() -> None:
    """Entry point."""
    console.run_command(triton)


if __name__ == "__main__":
    main()
